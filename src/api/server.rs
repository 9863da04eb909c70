//! The server: accepts a limited number of connections, each with timeouts, and shuts down gracefully.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connections::{Connection, Connections};
use super::metrics::Metrics;
use super::{App, AppState, Options, router, submit};
use snapdeck_engine::{Engine, Suspension};
use snapdeck_model::{Error, HostName, Kind, Result};

/// Bytes of a request's headers, and their number.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// Limit of TLS handshakes and request headers; also ends idle connections.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Closes a connection whose peer acknowledges nothing (tcp(7)).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Detects lost peers: callers may wait for a job for hours.
const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Delay after a failed accept, such as one without file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// A shutdown takes at most 10 s: jobs clean up, then the last responses are sent.
const JOBS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);
const RESPONSES_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a host until `stop` completes. Then no more jobs are accepted; unfinished pulls and pushes of new snapshots stay in the
/// journal, other jobs are cancelled.
///
/// # Errors
/// `InvalidInput` if it cannot listen.
pub async fn serve(
    engine: Engine,
    host: HostName,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    options.check()?;
    let tls = options.tls.as_ref().map(|files| files.read()).transpose()?;
    let cannot = |error: io::Error| {
        Error::new(
            Kind::InvalidInput,
            format!("cannot listen on {}", options.listen),
        )
        .with_cause(error)
        .hint("choose another address with --listen")
    };
    let listener = TcpListener::bind(options.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let app = App(Arc::new(AppState {
        engine,
        host,
        access: options.access,
        has_public_metrics: options.has_public_metrics,
        address,
        idempotency_keys: Mutex::default(),
        waits: Arc::new(Semaphore::new(submit::MAX_WAITS)),
        load_requests: Notify::new(),
        metrics: Metrics::new(),
        shutdown: CancellationToken::new(),
    }));
    app.engine.follow();
    for (title, job) in app.engine.resume_unfinished() {
        match job {
            Ok(id) => tracing::info!(job = id.0, "{title}: resumed from the last run"),
            Err(error) => tracing::warn!("{title}: cannot resume from the last run: {error}"),
        }
    }
    let counter = {
        let app = app.clone();
        tokio::spawn(async move { app.metrics.count_completed_jobs(&app.engine).await })
    };
    let load_watch = {
        let app = app.clone();
        tokio::spawn(async move { app.watch_load().await })
    };
    let handler = ConnectionHandler {
        router: router(app.clone()),
        tls,
    };
    let graceful = GracefulShutdown::new();
    let connections = Connections::default();
    let scheme = if options.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!("serving host {} on {scheme}://{address}", app.host);
    if options.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!("the token is sent unencrypted: enable TLS with --tls-cert and --tls-key");
    }
    let shutdown = async {
        stop.await;
        tracing::info!(
            "shutting down: pulls and pushes of new snapshots are resumed at the next start, other jobs cancelled"
        );
        app.shutdown.cancel();
        let suspension = Suspension::Unattended;
        app.engine.suspend(JOBS_SHUTDOWN_TIMEOUT, suspension).await;
    };
    tokio::select! {
        () = shutdown => {}
        () = handler.accept_connections(&listener, &connections, &graceful) => {}
    }
    drop(listener);
    // Idle connections end at once; after the timeout the others are closed.
    let _ = timeout(RESPONSES_SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
    counter.abort();
    load_watch.abort();
    Ok(())
}

#[derive(Clone)]
struct ConnectionHandler {
    router: Router,
    tls: Option<TlsAcceptor>,
}

impl ConnectionHandler {
    async fn accept_connections(
        &self,
        listener: &TcpListener,
        connections: &Connections,
        graceful: &GracefulShutdown,
    ) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let watcher = graceful.watcher();
                    let handler = self.clone();
                    let connection = connections.admit(peer.ip());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = handler.handle_connection(stream, peer, watcher, &connection) => {}
                            () = connection.closed() => tracing::debug!("{peer}: closed"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    connections.make_room();
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    async fn handle_connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: Watcher,
        connection: &Arc<Connection>,
    ) {
        if let Err(error) = set_socket_options(&stream) {
            tracing::debug!("{peer}: {error}");
        }
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, peer, watcher, connection).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, peer, watcher, connection).await,
            Ok(Err(error)) => tracing::debug!("{peer}: {error}"),
            Err(_) => tracing::debug!("{peer}: TLS handshake timed out"),
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        watcher: Watcher,
        connection: &Arc<Connection>,
    ) {
        let mut server = Builder::new(TokioExecutor::new()).http1_only();
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS);
        let place = connection.clone();
        let service = self
            .router
            .clone()
            .map_request(move |mut request: Request<_>| {
                request.extensions_mut().insert(place.clone());
                request
            });
        let connection = server
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!("{peer}: {error}");
        }
    }
}

fn set_socket_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE_TIME))
}
