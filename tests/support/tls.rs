//! Certificates made for one test, a provider reached only over TLS, and a proxy on the way to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use switchpoint::net::tls::{Certificate, client, server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::replies::REPLY;

/// An authority that nobody else trusts.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A provider behind TLS that answers every request with `REPLY`.
pub(crate) struct SecureUpstream {
    pub(crate) address: SocketAddr,
    /// Each request's version and the size of its body, where that came to its end.
    seen: Seen,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

type Seen = Arc<Mutex<Vec<(Version, Option<usize>)>>>;

/// A proxy that opens tunnels and remembers what it was asked.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let authority = Self { folder, issuer: Issuer::new(params, key) };
        authority.issue();
        authority
    }

    /// Replaces the certificate of 127.0.0.1.
    pub(crate) fn issue(&self) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A connection that trusts this authority and offers `protocols`.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> TlsStream<TcpStream> {
        let mut config = rustls::ClientConfig::clone(&client(Some(&self.path("ca.pem"))).unwrap());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = address.ip().into();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

// === impl SecureUpstream ===

impl SecureUpstream {
    pub(crate) async fn start(authority: &Authority, protocols: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate =
            Certificate::load(&authority.path("cert.pem"), &authority.path("key.pem")).unwrap();
        let mut config = rustls::ServerConfig::clone(&server(Arc::new(certificate)).unwrap());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (seen, connections) = (Seen::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&connections);
        tasks.spawn(accept(listener, counted, acceptor, Arc::clone(&seen)));
        Self { address, seen, connections, _tasks: tasks }
    }

    /// How many were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn versions(&self) -> Vec<Version> {
        self.seen.lock().unwrap().iter().map(|(version, _)| *version).collect()
    }

    pub(crate) fn sizes(&self) -> Vec<Option<usize>> {
        self.seen.lock().unwrap().iter().map(|(_, size)| *size).collect()
    }

    /// The provider's section.
    pub(crate) fn section(&self, ca: &Path, more: &str) -> String {
        let (address, ca) = (self.address, ca.display());
        format!(
            "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"https://{address}/v1\"\n\
             api_key = \"sk-upstream-up\"\nca = \"{ca}\"\n{more}\n"
        )
    }
}

async fn accept(
    listener: TcpListener,
    counted: Arc<AtomicUsize>,
    acceptor: TlsAcceptor,
    seen: Seen,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        counted.fetch_add(1, Ordering::SeqCst);
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| reply(request, Arc::clone(&seen)));
            let builder = Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn reply(
    request: Request<Incoming>,
    seen: Seen,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let version = request.version();
    let size = read(request.into_body()).await;
    seen.lock().unwrap().push((version, size));
    let mut response = Response::new(Full::new(Bytes::from_static(REPLY.as_bytes())));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

/// The size of a body; it is not kept.
async fn read(mut body: Incoming) -> Option<usize> {
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame.ok()?.into_data().map_or(0, |data| data.len());
    }
    Some(size)
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&heads);
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tunnels.spawn(tunnel(stream, Arc::clone(&shared)));
            }
        });
        Self { address, heads, _tasks: tasks }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn tunnel(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
