//! An S3 server in this process, on a free loopback port.

use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use snapdeck_model::settings::Credentials;
use snapdeck_model::{Error, Kind, Result};

/// Serves the directories under `root` as buckets until the runtime ends; clients authenticate with `keys`.
///
/// # Errors
/// `Failed` if `root` cannot be served or no port is free.
pub(crate) async fn serve(root: &Path, keys: &Credentials) -> Result<SocketAddr> {
    let failed = |cause: String| {
        Error::new(Kind::Failed, "cannot start the S3 server of the demo").with_cause(cause)
    };
    let files = s3s_fs::FileSystem::new(root).map_err(|error| failed(format!("{error:?}")))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(
        keys.access_key_id.clone(),
        keys.secret_access_key.clone(),
    ));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| failed(error.to_string()))?;
    let address = listener
        .local_addr()
        .map_err(|error| failed(error.to_string()))?;
    tokio::spawn(async move {
        let http = auto::Builder::new(TokioExecutor::new());
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    let connection = http.serve_connection(TokioIo::new(socket), service.clone());
                    tokio::spawn(connection.into_owned());
                }
                // Such as no free file descriptors, which is temporary.
                Err(error) => {
                    tracing::warn!("the S3 server of the demo cannot accept a connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(address)
}
