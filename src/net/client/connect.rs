//! Opens a connection: name resolution, TCP, a proxy's tunnel, TLS.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Intercept;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::reach::Reach;
use crate::net::tls;

/// How long one of several addresses is waited for.
const ONE_ADDRESS: Duration = Duration::from_secs(3);

/// How to reach one origin.
pub(super) struct Connector {
    /// `scheme://host:port`, as far as written.
    address: String,
    authority: String,
    host: String,
    port: u16,
    tcp: HttpConnector,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<Proxy>,
    reach: Reach,
}

/// The proxy on the way to an origin; with TLS where it is asked by `https`, whatever is asked of
/// it.
pub(super) struct Proxy {
    way: Intercept,
    tls: Option<TlsConnector>,
}

/// A connection and the protocol that both sides agreed on.
pub(super) enum Connected {
    Http1(Stream),
    Http2(Stream),
}

/// A socket, or TLS over one.
pub(super) enum Stream {
    Plain(TcpStream),
    /// A socket that the reactor does not watch: reading never wakes anyone, so whoever reads comes
    /// back by a timer. As network drivers do under load, a fast stream is polled and not awaited.
    Polled(std::net::TcpStream),
    Tls(Box<TlsStream<Stream>>),
    /// Between two of the others; nothing can be done with it.
    Gone,
}

// === impl Proxy ===

impl Proxy {
    /// Authorities beside the public ones are those of the origin behind it.
    pub(super) fn new(way: Intercept, ca: Option<&Path>) -> io::Result<Self> {
        let secured = way.uri().scheme_str() == Some("https");
        Ok(Self { way, tls: secured.then(|| tls::connector(ca)).transpose()? })
    }
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(
        address: &Uri,
        tls: Option<Arc<ClientConfig>>,
        proxy: Option<Proxy>,
    ) -> io::Result<Self> {
        let authority = address.authority().ok_or_else(|| io::Error::other("it has no host"))?;
        let default_port = if tls.is_some() { 443 } else { 80 };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        Ok(Self {
            address: format!("{}://{authority}", if tls.is_some() { "https" } else { "http" }),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.to_string(),
            tcp,
            tls,
            proxy,
            reach: Reach::Anywhere,
        })
    }

    pub(super) fn within(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn server(&self) -> (&str, u16) {
        (self.host.trim_matches(['[', ']']), self.port)
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) async fn connect(&self) -> io::Result<Connected> {
        let mut stream = match (&self.proxy, self.reach) {
            (None, Reach::Anywhere) => {
                self.dial(format!("http://{}:{}", self.host, self.port)).await?
            }
            (None, reach) => self.dial_checked(reach).await?,
            // What a proxy makes of a name cannot be looked at, so it is given an address; unless
            // the operator chose both.
            (Some(proxy), Reach::Public) => {
                let addresses = Reach::Public.look_up(&self.host, self.port).await?;
                let address = addresses.first().ok_or(io::ErrorKind::NotFound)?;
                self.tunnel(proxy, &address.to_string()).await?
            }
            (Some(proxy), _) => self.tunnel(proxy, &format!("{}:{}", self.host, self.port)).await?,
        };
        let Some(config) = &self.tls else { return Ok(Connected::Http1(stream)) };
        stream = secure(stream, &TlsConnector::from(Arc::clone(config)), &self.host).await?;
        match &stream {
            Stream::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Ok(Connected::Http2(stream))
            }
            _ => Ok(Connected::Http1(stream)),
        }
    }

    async fn dial(&self, address: String) -> io::Result<Stream> {
        let address: Uri = address.parse().map_err(io::Error::other)?;
        let connected = self.tcp.clone().call(address).await.map_err(io::Error::other)?;
        Ok(Stream::Plain(connected.into_inner()))
    }

    /// To the addresses that were looked at, one after the other, and to no others.
    async fn dial_checked(&self, reach: Reach) -> io::Result<Stream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in reach.look_up(&self.host, self.port).await? {
            match tokio::time::timeout(ONE_ADDRESS, self.dial(format!("http://{address}"))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    /// A tunnel through an HTTP proxy (RFC 9110, section 9.3.6).
    async fn tunnel(&self, proxy: &Proxy, target: &str) -> io::Result<Stream> {
        let place = proxy.way.uri();
        let host = place.host().ok_or_else(|| io::Error::other("the proxy has no host"))?;
        let usual = if proxy.tls.is_some() { 443 } else { 80 };
        let port = place.port_u16().unwrap_or(usual);
        let mut stream = self.dial(format!("http://{host}:{port}")).await?;
        if let Some(connector) = &proxy.tls {
            stream = secure(stream, connector, host).await?;
        }
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
        if let Some(credentials) = proxy.way.basic_auth() {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(credentials.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        read_tunnel_answer(&mut stream).await?;
        Ok(stream)
    }
}

async fn secure(stream: Stream, connector: &TlsConnector, host: &str) -> io::Result<Stream> {
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = connector.connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// Reads the proxy's answer byte by byte, so as not to take any of what follows it.
async fn read_tunnel_answer(stream: &mut Stream) -> io::Result<()> {
    const LONGEST: usize = 8 * 1024;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&head).map_err(io::Error::other)?;
    match response.code {
        Some(200..=299) => Ok(()),
        code => Err(io::Error::other(format!(
            "the proxy refused the tunnel with status {}",
            code.unwrap_or(0)
        ))),
    }
}

// === impl Stream ===

impl Stream {
    /// Has the reactor watch the socket, or not.
    pub(super) fn watch(&mut self, watched: bool) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Plain(stream) if !watched => Self::Polled(stream.into_std()?),
            Self::Polled(stream) if watched => Self::Plain(TcpStream::from_std(stream)?),
            Self::Tls(mut stream) => {
                stream.get_mut().0.watch(watched)?;
                Self::Tls(stream)
            }
            same => same,
        };
        Ok(())
    }
}

/// The result of a non-blocking call on a socket that nobody watches.
fn unwatched<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Polled(stream) => {
                let length = ready!(unwatched(stream.read(buffer.initialize_unfilled())))?;
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            Self::Gone => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Polled(stream) => unwatched(stream.write(bytes)),
            Self::Gone => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Polled(stream) => unwatched(stream.write_vectored(slices)),
            Self::Gone => gone(),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Polled(_) | Self::Gone => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Polled(_) | Self::Gone => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
