//! The bare hyper reverse proxy: the least any gateway in Rust can cost.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http::{HeaderName, Request, Response, Uri, header, uri::Authority};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::mpsc,
    task::JoinSet,
};

use crate::process;

/// How connections meet threads.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Layout {
    /// One work-stealing runtime with a worker per core.
    Shared,
    /// A single-threaded runtime per core, each with its own listener and pool.
    PerCore,
    /// As per core, but one acceptor hands each connection to the least loaded.
    Dispatch,
}

const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The upstream and the pool of connections to it.
#[derive(Clone)]
struct Proxy {
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
}

/// A runtime that is handed its connections.
struct Worker {
    connections: mpsc::Sender<StdStream>,
    open: Arc<AtomicUsize>,
}

pub(crate) fn run(layout: Layout, upstream: &str) {
    let upstream: Authority = upstream.parse().expect("--upstream is host:port");
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    match layout {
        Layout::Shared => run_shared(cores, upstream),
        Layout::PerCore => run_per_core(cores, &upstream),
        Layout::Dispatch => run_dispatch(cores, &upstream),
    }
}

fn run_shared(cores: usize, upstream: Authority) {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    process::announce(listener.local_addr().unwrap());
    let runtime = Builder::new_multi_thread().worker_threads(cores).enable_all().build().unwrap();
    // A worker accepts, as in any server that spawns its accept loop.
    runtime
        .block_on(async { runtime.spawn(accept(listener, Proxy::new(upstream))).await.unwrap() });
}

fn run_per_core(cores: usize, upstream: &Authority) {
    let first = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = first.local_addr().unwrap();
    let listeners: Vec<_> = std::iter::once(first)
        .chain(std::iter::repeat_with(|| listen(address)).take(cores - 1))
        .collect();
    process::announce(address);
    thread::scope(|scope| {
        for listener in listeners {
            scope.spawn(move || single_threaded(accept(listener, Proxy::new(upstream.clone()))));
        }
    });
}

fn run_dispatch(cores: usize, upstream: &Authority) {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    listener.set_nonblocking(false).unwrap();
    process::announce(listener.local_addr().unwrap());
    thread::scope(|scope| {
        let workers: Vec<Worker> = (0..cores)
            .map(|_| {
                let (connections, incoming) = mpsc::channel(1024);
                let open = Arc::new(AtomicUsize::new(0));
                let (proxy, counter) = (Proxy::new(upstream.clone()), open.clone());
                scope.spawn(move || single_threaded(receive(incoming, proxy, counter)));
                Worker { connections, open }
            })
            .collect();
        for stream in listener.incoming() {
            let worker =
                workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)).unwrap();
            worker.open.fetch_add(1, Ordering::Relaxed);
            worker.connections.blocking_send(stream.unwrap()).unwrap();
        }
    });
}

fn single_threaded(work: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// Several listeners may share the address; the kernel spreads connections by their hash.
fn listen(address: SocketAddr) -> StdListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

async fn accept(listener: StdListener, proxy: Proxy) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, proxy.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn receive(mut incoming: mpsc::Receiver<StdStream>, proxy: Proxy, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Some(stream) = incoming.recv().await {
        stream.set_nonblocking(true).unwrap();
        let (proxy, open) = (proxy.clone(), open.clone());
        connections.spawn(async move {
            serve(TcpStream::from_std(stream).unwrap(), proxy).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, proxy: Proxy) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(|request| proxy.forward(request));
    // A client that leaves in the middle is the end of its connection, not of the benchmark.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

// === impl Layout ===

impl Layout {
    /// As the command line spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerCore => "per-core",
            Self::Dispatch => "dispatch",
        }
    }
}

// === impl Proxy ===

impl Proxy {
    fn new(upstream: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), upstream }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.upstream.clone());
        *request.uri_mut() = Uri::from_parts(parts).expect("a request path makes a URI");
        // Absent, the client writes the one of the new address.
        request.headers_mut().remove(header::HOST);
        for name in &HOP_BY_HOP {
            request.headers_mut().remove(name);
        }
        let mut response = self.client.request(request).await?;
        for name in &HOP_BY_HOP {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }
}
