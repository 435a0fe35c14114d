//! Generates the load: keep-alive connections in closed loop, at a fixed rate, or held open.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
    task::JoinSet,
};

use crate::{
    reply::Reply,
    report::percentile,
    traffic::{Case, FAST, Request, SMALL},
};

/// An address such as `http://127.0.0.1:8080/v1`, taken apart.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    base_path: String,
}

/// Connections that are open and warm.
pub(crate) struct Fleet {
    connections: Vec<Connection>,
    request: Arc<Request>,
}

struct Connection {
    stream: TcpStream,
    reply: Reply,
}

/// The moments requests are due, taken by whichever connection is free.
type Due = Mutex<mpsc::Receiver<Instant>>;

/// What a run of requests took.
pub(crate) struct Outcome {
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

/// Streams that are open and stay so until this is dropped.
pub(crate) struct HeldStreams {
    tasks: JoinSet<io::Result<()>>,
    target: Target,
    request: Arc<Request>,
    started: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The address, such as <http://127.0.0.1:8080/v1>.
    url: String,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Send this many requests over each connection instead, as counting instructions needs.
    #[arg(long, conflicts_with = "rate")]
    requests: Option<usize>,
    /// Requests per second; without it, as many as the target answers.
    #[arg(long)]
    rate: Option<u32>,
    /// Ask for streams without gaps instead of small completions.
    #[arg(long)]
    stream: bool,
}

pub(crate) async fn command(options: Options) {
    let case = if options.stream { FAST } else { SMALL }.with_connections(options.connections);
    let fleet = Fleet::open(&Target::parse(&options.url), &case).await.unwrap();
    let duration = Duration::from_secs_f64(options.seconds);
    let outcome = match (options.requests, options.rate) {
        (Some(requests), _) => fleet.repeat(requests).await.unwrap(),
        (None, Some(rate)) => fleet.pace(rate, duration).await.unwrap(),
        (None, None) => fleet.saturate(duration).await.unwrap(),
    };
    println!(
        "{} requests, {:.0}/s, p50 {:?}, p99 {:?}",
        outcome.latencies.len(),
        outcome.per_second(),
        percentile(&outcome.latencies, 50),
        percentile(&outcome.latencies, 99),
    );
}

// === impl Target ===

impl Target {
    pub(crate) fn parse(url: &str) -> Self {
        let rest = url.strip_prefix("http://").expect("a URL starts with http://");
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { host: host.to_owned(), base_path: path.trim_end_matches('/').to_owned() }
    }

    fn request(&self, case: &Case) -> Arc<Request> {
        Arc::new(case.request(&self.host, &self.base_path))
    }
}

// === impl Fleet ===

impl Fleet {
    /// Opens the case's connections and sends one request over each, so that all pools are full.
    pub(crate) async fn open(target: &Target, case: &Case) -> io::Result<Self> {
        let request = target.request(case);
        let warm_up = target.request(&Case { connections: case.connections, ..SMALL });
        let mut warming = JoinSet::new();
        for _ in 0..case.connections {
            let mut connection = Connection::open(target).await?;
            let warm_up = warm_up.clone();
            warming.spawn(async move { connection.ask(&warm_up).await.map(|()| connection) });
        }
        let mut connections = Vec::new();
        while let Some(connection) = warming.join_next().await {
            connections.push(connection.unwrap()?);
        }
        Ok(Self { connections, request })
    }

    /// Asks as fast as the answers come, for as long as told.
    pub(crate) async fn saturate(self, duration: Duration) -> io::Result<Outcome> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections {
            let request = self.request.clone();
            tasks.spawn(async move { connection.ask_until(&request, started + duration).await });
        }
        Outcome::collect(tasks, started).await
    }

    /// Asks so many times over each connection.
    pub(crate) async fn repeat(self, requests: usize) -> io::Result<Outcome> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections {
            let request = self.request.clone();
            tasks.spawn(async move { connection.ask_times(&request, requests).await });
        }
        Outcome::collect(tasks, started).await
    }

    /// Asks at a fixed rate whatever the answers do; latency counts from the moment due.
    pub(crate) async fn pace(self, rate: u32, duration: Duration) -> io::Result<Outcome> {
        let started = Instant::now();
        let (due, receiver) = mpsc::channel(4096);
        let receiver = Arc::new(Mutex::new(receiver));
        // A thread, because the kernel wakes it within microseconds and tokio's timer does not.
        let pacer = thread::spawn(move || keep_pace(&due, Duration::from_secs(1) / rate, duration));
        let mut tasks = JoinSet::new();
        for mut connection in self.connections {
            let (request, receiver) = (self.request.clone(), receiver.clone());
            tasks.spawn(async move { connection.ask_when_due(&request, &receiver).await });
        }
        let outcome = Outcome::collect(tasks, started).await;
        pacer.join().expect("the pacer ends with its time");
        outcome
    }
}

/// Sends the moment at each step; it never waits for an answer.
fn keep_pace(due: &mpsc::Sender<Instant>, step: Duration, duration: Duration) {
    let started = Instant::now();
    let mut next = Duration::ZERO;
    while next < duration {
        next += step;
        thread::sleep(next.saturating_sub(started.elapsed()));
        if due.try_send(Instant::now()).is_err() {
            return;
        }
    }
}

// === impl Connection ===

impl Connection {
    async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(&target.host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, reply: Reply::new() })
    }

    async fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.reply.restart();
        self.stream.write_all(&request.bytes).await?;
        loop {
            self.read().await?;
            if self.reply.advance()? {
                return self.reply.check(request.expected);
            }
        }
    }

    async fn ask_until(&mut self, request: &Request, end: Instant) -> io::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let asked = Instant::now();
            self.ask(request).await?;
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    }

    async fn ask_times(&mut self, request: &Request, times: usize) -> io::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        for _ in 0..times {
            let asked = Instant::now();
            self.ask(request).await?;
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    }

    async fn ask_when_due(&mut self, request: &Request, due: &Due) -> io::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let next = due.lock().await.recv().await;
            let Some(asked) = next else { return Ok(latencies) };
            self.ask(request).await?;
            latencies.push(asked.elapsed());
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.reply.input.reserve(4096);
        match self.stream.read_buf(&mut self.reply.input).await? {
            0 => Err(io::Error::other("the connection closed in the middle of a reply")),
            _ => Ok(()),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    async fn collect(
        mut tasks: JoinSet<io::Result<Vec<Duration>>>,
        started: Instant,
    ) -> io::Result<Self> {
        let mut latencies = Vec::new();
        while let Some(task) = tasks.join_next().await {
            latencies.extend(task.unwrap()?);
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        Ok(Self { latencies, elapsed })
    }

    pub(crate) fn per_second(&self) -> f64 {
        crate::report::count(self.latencies.len()) / self.elapsed.as_secs_f64()
    }
}

// === impl HeldStreams ===

impl HeldStreams {
    pub(crate) fn new(target: &Target, case: &Case) -> Self {
        Self {
            tasks: JoinSet::new(),
            target: target.clone(),
            request: target.request(case),
            started: Arc::default(),
            events: Arc::default(),
        }
    }

    /// Opens more streams until there are `total`, and waits for the first event of each.
    pub(crate) async fn grow(&mut self, total: usize) -> io::Result<()> {
        while self.tasks.len() < total {
            let connection = Connection::open(&self.target).await?;
            let (request, started) = (self.request.clone(), self.started.clone());
            self.tasks.spawn(hold(connection, request, started, self.events.clone()));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.started.load(Ordering::Relaxed) < total {
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap()?;
                return Err(io::Error::other("a slow stream ended early"));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("not every slow stream started in time"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Events received so far, on all streams.
    pub(crate) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }
}

async fn hold(
    mut connection: Connection,
    request: Arc<Request>,
    started: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
) -> io::Result<()> {
    connection.stream.write_all(&request.bytes).await?;
    let mut waiting = true;
    loop {
        connection.read().await?;
        if connection.reply.advance()? {
            return Ok(());
        }
        let count = connection.reply.events();
        connection.reply.body.clear();
        events.fetch_add(count, Ordering::Relaxed);
        if waiting && count > 0 {
            started.fetch_add(1, Ordering::Relaxed);
            waiting = false;
        }
    }
}
