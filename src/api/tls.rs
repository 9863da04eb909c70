//! TLS: certificate and key from files.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use snapdeck_model::{Error, Kind, Result};

/// The files, PEM each.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, then those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads both.
    ///
    /// # Errors
    /// `InvalidInput` where a file cannot be read, or they do not belong together.
    pub fn read(&self) -> Result<TlsAcceptor> {
        let unread = |what: &str, path: &PathBuf, error: pem::Error| {
            let what = format!("cannot read the {what} from {}", path.display());
            Error::new(Kind::InvalidInput, what).with_cause(error)
        };
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unread("TLS certificate", &self.cert, error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| unread("TLS key", &self.key, error))?;
        let unfit = |error: rustls::Error| {
            let (cert, key) = (self.cert.display(), self.key.display());
            let what = format!("cannot use {cert} and {key} for TLS");
            Error::new(Kind::InvalidInput, what).with_cause(error)
        };
        // The provider that the bucket's client uses, too: two would be a choice that somebody has to make.
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(unfit)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
