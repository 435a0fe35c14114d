//! A provider that does as it is told, over real sockets, and remembers what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::script::{Script, Step};
use super::until;

/// One upstream. The `model` of a request picks its scripts; the n-th request for a model gets the
/// n-th script, and the last script answers all that follow. Scripts for `model?stream` go before
/// those for `model` when a stream is asked for, as do those for `model?base64` and the like.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) model: String,
    /// The form of answer that it wants.
    pub(crate) variant: String,
    /// The number of the connection that it came on.
    pub(crate) connection: usize,
    /// When all of it had come.
    pub(crate) at: Instant,
}

#[derive(Default)]
struct State {
    /// Answers in place of the scripts.
    mind: Option<Mind>,
    scripts: HashMap<String, Vec<Script>>,
    served: HashMap<String, usize>,
    requests: Vec<Request>,
    connections: BTreeMap<usize, Connection>,
    /// Requests being answered.
    busy: usize,
    /// A connection that has been unused for so long is closed.
    idle: Option<Duration>,
}

/// What became of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    /// Bytes of answers that the other side's kernel has taken.
    pub(crate) written: usize,
    /// When it ended, and whether the other side ended it.
    pub(crate) ended: Option<(Instant, bool)>,
}

type Shared = Arc<Mutex<State>>;

/// Makes up the answer to a request.
type Mind = Box<dyn Fn(&Request) -> Script + Send>;

/// How an exchange left its connection.
enum Left {
    Open,
    ByUs,
    ByPeer,
}

// === impl Upstream ===

impl Upstream {
    /// An upstream with scripts per model.
    pub(crate) async fn start<Name, Scripts>(
        scripts: impl IntoIterator<Item = (Name, Scripts)>,
    ) -> Self
    where
        Name: Into<String>,
        Scripts: IntoIterator<Item = Script>,
    {
        let scripts = scripts
            .into_iter()
            .map(|(model, scripts)| (model.into(), scripts.into_iter().collect()))
            .collect();
        Self::listen(State { scripts, ..State::default() }).await
    }

    /// An upstream that makes up its answers.
    pub(crate) async fn answering(mind: impl Fn(&Request) -> Script + Send + 'static) -> Self {
        Self::listen(State { mind: Some(Box::new(mind)), ..State::default() }).await
    }

    async fn listen(state: State) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(state));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// Lets connections rest only so long between requests.
    pub(crate) fn close_idle(&self, after: Duration) {
        self.state().idle = Some(after);
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The one request that arrived.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    /// Every connection there was, in order.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.state().connections.values().cloned().collect()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections().iter().filter(|connection| connection.ended.is_none()).count()
    }

    /// Requests being answered at this moment.
    pub(crate) fn busy(&self) -> usize {
        self.state().busy
    }

    /// Waits for the n-th request to have arrived.
    pub(crate) async fn asked(&self, times: usize) {
        until("the upstream is asked", || self.state().requests.len() >= times).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One that no other upstream has, where all of 127/8 is this machine: whoever still asks one that
/// is gone must not reach another that was given its port.
fn own_address() -> Ipv4Addr {
    static STARTED: AtomicU16 = AtomicU16::new(0);
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let [high, low] = STARTED.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

async fn accept(listener: TcpListener, state: Shared) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.spawn(converse(stream, number, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, number: usize, state: Shared) {
    state.lock().unwrap().connections.insert(number, Connection::default());
    let (mut reader, mut writer) = stream.into_split();
    let mut input = BytesMut::new();
    let by_peer = loop {
        let idle = state.lock().unwrap().idle.unwrap_or(Duration::from_hours(1));
        let Ok(read) = tokio::time::timeout(idle, read_request(&mut reader, &mut input)).await
        else {
            break false;
        };
        let Ok(Some(mut request)) = read else { break true };
        request.connection = number;
        if request.path == "/control/open" {
            let open = format!("{{\"open\":{}}}", state.lock().unwrap().busy);
            let Step::Send(bytes) = &Script::json(200, &open).0[0] else { unreachable!() };
            let _ = writer.write_all(bytes).await;
            continue;
        }
        match serve(request, &mut reader, &mut writer, &state).await {
            Left::Open => {}
            Left::ByUs => break false,
            Left::ByPeer => break true,
        }
    };
    let mut state = state.lock().unwrap();
    state.connections.get_mut(&number).unwrap().ended = Some((Instant::now(), by_peer));
}

/// Answers one request, and notices when the other side leaves meanwhile.
async fn serve(
    request: Request,
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    state: &Shared,
) -> Left {
    let number = request.connection;
    let script = {
        let mut state = state.lock().unwrap();
        state.busy += 1;
        state.script(request)
    };
    let mut byte = [0; 1];
    let left = tokio::select! {
        biased;
        left = perform(script, writer, number, state) => left,
        // Nobody sends a second request before the first is answered, so this is the end.
        _ = reader.read(&mut byte) => Left::ByPeer,
    };
    state.lock().unwrap().busy -= 1;
    left
}

async fn perform(
    script: Script,
    writer: &mut OwnedWriteHalf,
    number: usize,
    state: &Shared,
) -> Left {
    for (at, step) in script.0.into_iter().enumerate() {
        if at > 0 {
            // Each piece leaves on its own, and others have their turn. Not behind the last one:
            // whoever has it may ask again at once, which must not be taken for leaving.
            tokio::task::yield_now().await;
        }
        match step {
            Step::Send(bytes) => match send(bytes, writer, number, state).await {
                Ok(()) => {}
                Err(_) => return Left::ByPeer,
            },
            Step::Wait(duration) => tokio::time::sleep(duration).await,
            Step::Gate(gate) => gate.passed().await,
            Step::Stall => std::future::pending().await,
            Step::Close => return Left::ByUs,
            Step::Reset => {
                let _ = writer.as_ref().set_zero_linger();
                return Left::ByUs;
            }
        }
    }
    Left::Open
}

/// Writes all of `bytes`, and counts what the other side has taken meanwhile.
async fn send(
    mut bytes: Bytes,
    writer: &mut OwnedWriteHalf,
    number: usize,
    state: &Shared,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = writer.write(&bytes).await?;
        let _ = bytes.split_to(written);
        let mut state = state.lock().unwrap();
        state.connections.get_mut(&number).unwrap().written += written;
    }
    Ok(())
}

/// Reads one request, whole; `None` when the other side has no more.
async fn read_request(
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
) -> io::Result<Option<Request>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = parsed.parse(input).map_err(io::Error::other)? {
            let headers: Vec<(String, String)> = parsed
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_ascii_lowercase(), value)
                })
                .collect();
            let method = parsed.method.unwrap_or_default().to_owned();
            let path = parsed.path.unwrap_or_default().to_owned();
            let told = |name: &str| headers.iter().find(|(known, _)| known == name);
            let length = told("content-length").map_or(0, |(_, value)| value.parse().unwrap());
            let is_chunked = told("transfer-encoding").is_some();
            let _ = input.split_to(head);
            let body = if is_chunked {
                read_chunks(reader, input).await?
            } else {
                read_exactly(reader, input, length).await?
            };
            let Some(body) = body else { return Ok(None) };
            let (model, variant) = asked(&path, &body);
            let (connection, at) = (0, Instant::now());
            let request = Request { method, path, headers, body, model, variant, connection, at };
            return Ok(Some(request));
        }
        if reader.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_exactly(
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
    length: usize,
) -> io::Result<Option<Bytes>> {
    input.reserve(length.saturating_sub(input.len()));
    while input.len() < length && reader.read_buf(input).await? > 0 {}
    Ok((input.len() >= length).then(|| input.split_to(length).freeze()))
}

/// A body in chunks (RFC 9112, section 7.1), put together.
async fn read_chunks(
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
) -> io::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    loop {
        let size = loop {
            match httparse::parse_chunk_size(input).map_err(|_| io::ErrorKind::InvalidData)? {
                httparse::Status::Complete((start, size)) => {
                    let _ = input.split_to(start);
                    break usize::try_from(size).unwrap();
                }
                httparse::Status::Partial if reader.read_buf(input).await? == 0 => return Ok(None),
                httparse::Status::Partial => {}
            }
        };
        let Some(chunk) = read_exactly(reader, input, size + 2).await? else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body.freeze()));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// The model and the method in the paths of those that name them there: Google and Amazon.
fn named_in_path(path: &str) -> Option<(&str, &str)> {
    if let Some((_, rest)) = path.split_once("/model/") {
        return rest.split_once('/');
    }
    path.split_once("/models/")?.1.split_once(':')
}

/// The model in the body, and in which form the answer is wanted.
fn asked(path: &str, body: &[u8]) -> (String, String) {
    #[derive(serde::Deserialize)]
    struct Asked {
        model: String,
        #[serde(default)]
        stream: bool,
        encoding_format: Option<String>,
    }
    if let Some((model, method)) = named_in_path(path) {
        let stream = method.to_ascii_lowercase().contains("stream");
        return (model.to_owned(), if stream { "stream".to_owned() } else { String::new() });
    }
    let Ok(asked) = serde_json::from_slice::<Asked>(body) else {
        return (path.to_owned(), String::new());
    };
    let format = asked.encoding_format.unwrap_or_default();
    (asked.model, if asked.stream { "stream".to_owned() } else { format })
}

// === impl Request ===

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

// === impl State ===

impl State {
    fn script(&mut self, request: Request) -> Script {
        if let Some(mind) = &self.mind {
            let script = mind(&request);
            self.requests.push(request);
            return script;
        }
        let special = format!("{}?{}", request.model, request.variant);
        let known = self.scripts.contains_key(&special);
        let name = if known { special } else { request.model.clone() };
        let scripts = self.scripts.get(&name);
        let served = self.served.entry(name).or_default();
        let script = scripts.and_then(|all| all.get(*served).or_else(|| all.last())).cloned();
        *served += 1;
        let unknown = || Script::json(404, r#"{"error":{"message":"no such script"}}"#);
        self.requests.push(request);
        script.unwrap_or_else(unknown)
    }
}
