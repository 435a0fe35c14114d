//! rustls on both sides: our certificate, reloaded when it changes, and whom we trust.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, WantsVerifier,
};
use tokio_rustls::TlsConnector;

/// The certificate that the API's listeners show, replaced as a whole.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// Read once a handshake, never on a request's path.
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    pub fn load(cert: &Path, key: &Path) -> io::Result<Self> {
        let current = RwLock::new(Arc::new(read_certificate(cert, key)?));
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again; on error the old certificate stays.
    pub fn reload(&self) -> io::Result<()> {
        let fresh = Arc::new(read_certificate(&self.cert, &self.key)?);
        if let Ok(mut current) = self.current.write() {
            *current = fresh;
        }
        Ok(())
    }

    /// The files it was read from.
    pub fn paths(&self) -> [&Path; 2] {
        [&self.cert, &self.key]
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|current| Arc::clone(&current))
    }
}

/// The server side: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
pub fn server(certificate: Arc<Certificate>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client side: the public authorities, and those in the PEM file `ca` when one is given.
pub fn client(ca: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let mut config = client_side()?.with_root_certificates(roots(ca)?).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client side of other protocols than HTTP.
pub fn connector(ca: Option<&Path>) -> io::Result<TlsConnector> {
    let config = client_side()?.with_root_certificates(roots(ca)?).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The same without a look at who answers: it keeps out who listens, and nobody who pretends.
pub fn connector_to_anyone() -> io::Result<TlsConnector> {
    let anyone = Arc::new(Anyone(ring::default_provider().signature_verification_algorithms));
    let config =
        client_side()?.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn client_side() -> io::Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
}

fn roots(ca: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| named(path, &error))?;
        for certificate in certificates {
            roots.add(certificate).map_err(|error| named(path, &error))?;
        }
    }
    Ok(roots)
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn read_certificate(cert: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_field("cert", &named(cert, &error)))?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| of_field("key", &named(key, &error)))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| of_field("cert", &named(cert, &error)))
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Says first which field of the config is meant.
pub(super) fn of_field(field: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{field}: {error}"))
}
