//! The server: connections let in, a few hundred at once, none of them for ever, and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::{App, AppState, Options, router};
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Kind, Result};

/// Connections at once; more wait at the door.
const MAX_CONNECTIONS: usize = 512;
/// For a TLS handshake, and for the headers of a request, an idle connection included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer that takes nothing for so long is gone (tcp(7), `TCP_USER_TIMEOUT`).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that says nothing is asked by TCP itself after so long whether it is there: a caller may wait for its job
/// for hours.
const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// After an accept that failed, for want of file descriptors for instance.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// All of the end takes 10 s: jobs clean up, then the last answers go out.
const JOBS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);
const RESPONSES_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `engine`'s `host` until `stop` is over: no more jobs are taken on then, and those that run are
/// left to the journal.
///
/// # Errors
/// `InvalidInput` where it cannot listen so.
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
        idempotency_keys: Mutex::default(),
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
    let counting = app.clone();
    let counting = tokio::spawn(async move {
        counting
            .metrics
            .count_completed_jobs(&counting.engine)
            .await
    });
    let door = ConnectionHandler {
        router: router(app.clone()),
        tls,
    };
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let scheme = if options.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!("serving host {} on {scheme}://{address}", app.host);
    if options.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!("the token is sent unencrypted: enable TLS with --tls-cert and --tls-key");
    }
    let ended = async {
        stop.await;
        tracing::info!("shutting down: running jobs are resumed at the next start");
        app.shutdown.cancel();
        app.engine.suspend(JOBS_SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        () = ended => {}
        () = door.accept_connections(&listener, &places, &graceful) => {}
    }
    drop(listener);
    // Those that follow nothing end at once; what is left is cut off.
    let _ = timeout(RESPONSES_SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
    counting.abort();
    Ok(())
}

/// What every connection is led to.
#[derive(Clone)]
struct ConnectionHandler {
    router: Router,
    tls: Option<TlsAcceptor>,
}

impl ConnectionHandler {
    /// Lets connections in, for ever.
    async fn accept_connections(
        &self,
        listener: &TcpListener,
        places: &Arc<Semaphore>,
        graceful: &GracefulShutdown,
    ) {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let work =
                        self.clone()
                            .handle_connection(stream, peer, graceful.watcher(), place);
                    tokio::spawn(work);
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    async fn handle_connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: Watcher,
        _place: OwnedSemaphorePermit,
    ) {
        if let Err(error) = set_socket_options(&stream) {
            tracing::debug!("{peer}: {error}");
        }
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, peer, watcher).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!("{peer}: {error}"),
            Err(_) => tracing::debug!("{peer}: TLS handshake failed"),
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        let mut server = Builder::new(TokioExecutor::new()).http1_only();
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = server
            .serve_connection(TokioIo::new(stream), service)
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
