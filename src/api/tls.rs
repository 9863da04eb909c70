//! TLS: certificate and key from files.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use snapdeck_model::{Error, Kind, Result};
use snapdeck_settings::{read_public_file, read_secret_file};

/// Certificate and key files in PEM format.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// `InvalidInput` if a file cannot be read, other users can read or replace the key, or it does not match the certificate.
    pub fn read(&self) -> Result<TlsAcceptor> {
        let cannot_parse = |object: &str, path: &PathBuf, error: pem::Error| {
            let message = format!("cannot read the {object} from {}", path.display());
            Error::new(Kind::InvalidInput, message).with_cause(error)
        };
        let cert = read_public_file("cannot read the TLS certificate", &self.cert)?;
        let chain = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| cannot_parse("TLS certificate", &self.cert, error))?;
        let key = read_secret_file("cannot read the TLS key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| cannot_parse("TLS key", &self.key, error))?;
        let cannot_use = |error: rustls::Error| {
            let (cert, key) = (self.cert.display(), self.key.display());
            let message = format!("cannot use {cert} and {key} for TLS");
            Error::new(Kind::InvalidInput, message).with_cause(error)
        };
        // The same provider as in the S3 client; with two, rustls has no default.
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(cannot_use)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(cannot_use)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
