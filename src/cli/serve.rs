//! Runs the gateway: the one place where the rooms are put together.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::interval;

use super::banner::{self, Made};
use super::{
    ServeArguments, check, child, complain, complain_all, config_path, kinds, load, located, say,
};
use crate::agent::Agents;
use crate::config::{self, Config, LogFormat, Problem, Secret, StoreUrl, variable};
use crate::gateway::collector::{Collector, Exporting};
use crate::gateway::{Gateway, Overrides, Past, Reloader, Snapshot, generations};
use crate::http::{AdminApi, Api, Observed};
use crate::net::client::Client;
use crate::net::listen::{Closing, Door, bind};
use crate::net::patience::Limits;
use crate::net::tasks::Tasks;
use crate::net::tls::{self, Certificate};
use crate::net::workers::Workers;
use crate::store::Store;
use crate::store::shared::{Address, Bulletin, Shared, Turns, Values};
use crate::telemetry::{Format, Log, Telemetry, Traces};
use crate::tool::mcp;

/// How often what nobody uses any more is looked for: connections to upstreams, expired objects.
const SWEEP: Duration = Duration::from_secs(10);
/// How often calls are looked for that are older than they are to be kept.
const RETAIN: Duration = Duration::from_hours(1);
/// What open streams have, once told to end, to send their last event.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What the store has to write what it was handed.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// The name of a key that was made at the start because the config has none.
const MADE_KEY: &str = "first";

/// A section, and what is wrong with it.
pub(super) type Fault = (String, String);

/// Why the gateway does not run.
enum NoStart {
    Config(Vec<Problem>),
    Io(&'static str, io::Error),
}

pub(super) fn run(arguments: &ServeArguments) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(NoStart::Config(problems)) => complain_all(&problems),
        Err(NoStart::Io(what, error)) => {
            complain(&format!("{what}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &ServeArguments) -> Result<(), NoStart> {
    let path = config_path(arguments.config.clone());
    let mut config = load(path.as_deref()).map_err(NoStart::Config)?;
    let (overrides, made) = overrides(arguments, &config);
    overrides(&mut config);
    refuse_exposed_admin(arguments, &config, &made, path.as_ref())?;
    // Each call is two sockets, and the usual soft limit of 1024 would end at 500 streams.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let telemetry = telemetry(&config)?;
    let workers = Workers::start(config.server.workers)
        .map_err(|error| NoStart::Io("cannot start the workers", error))?;
    let client = Client::new(workers.count());
    let wrong = |problems: &[_]| NoStart::Config(located(path.as_deref(), problems));
    let missing = check::files(&config, &client);
    if !missing.is_empty() {
        return Err(wrong(&missing));
    }
    let collector = collector(&config, &client).map_err(|problem| wrong(&[problem]))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NoStart::Io("cannot start the runtime", error))?;
    // Nothing is made on the disk for a config that cannot be served.
    let strangers = (&client, Arc::default(), Arc::default());
    Snapshot::build(config.clone(), 0, strangers).map_err(|problems| wrong(&problems))?;
    let store = Store::open(&config.store)
        .map_err(|error| wrong(&[("store".to_owned(), error.to_string())]))?;
    let generation = runtime.block_on(generations::first(&store, &config));
    let turns = turns(&config, &store).map_err(|problem| wrong(&[problem]))?;
    let snapshot = Snapshot::build(config, generation, (&client, Arc::default(), Arc::default()));
    let equipped = snapshot.and_then(|mut snapshot| {
        let means = (&client, &store, &telemetry.metrics, turns.as_ref());
        snapshot.equip(means, None).map(|()| snapshot)
    });
    let snapshot = equipped.map_err(|problems| wrong(&problems))?;
    let gateway = Gateway::new(snapshot, client, store, telemetry);
    share(&gateway).map_err(|problem| wrong(&[problem]))?;
    if let Some(turns) = turns {
        gateway.take_turns_in(turns);
    }
    let reloader = Reloader::new(Arc::clone(&gateway), path, kinds(), overrides);
    let workers = Arc::new(workers);
    let agents = Agents::new(&gateway, &workers);
    let house = House { gateway, agents, reloader, workers, made };
    let result = runtime.block_on(async {
        let exporting = collector.and_then(|collector| collector.start(&house.gateway));
        house.serve(exporting).await
    });
    runtime.shutdown_background();
    result
}

/// Where the limits of tools are counted together with other replicas, if there can be any.
fn turns(config: &Config, store: &Store) -> Result<Option<Arc<Turns>>, Fault> {
    let replicas = config.store.replicas;
    let turns = match (shared(&config.store)?, &config.store.url) {
        (Some(address), _) => Some(Turns::open(address, replicas)),
        (None, StoreUrl::Postgres(_)) => Some(Turns::kept(store.clone(), replicas)),
        (None, StoreUrl::Sqlite(_) | StoreUrl::Memory) => None,
    };
    Ok(turns.map(Arc::new))
}

/// Has the gateway count together with other replicas, if a store for that is set.
fn share(gateway: &Gateway) -> Result<(), Fault> {
    let snapshot = gateway.snapshot();
    let config = &snapshot.config.store;
    let Some(address) = shared(config)? else { return Ok(()) };
    let node = gateway.store().node().to_string();
    gateway.share(Shared::open(address.clone(), node, config.replicas));
    gateway.remember_in(Values::open(address.clone()), Bulletin::open(address));
    Ok(())
}

/// Where replicas count together, if they do.
pub(super) fn shared(config: &config::Store) -> Result<Option<Address>, Fault> {
    let Some(url) = &config.shared else { return Ok(None) };
    let address = Address::read(url.expose(), config.shared_ca.as_deref());
    address.map(Some).map_err(|error| ("store".to_owned(), error.to_string()))
}

/// What is added to the config, now and at each reload: what the command line says, and keys where
/// there are none.
fn overrides(arguments: &ServeArguments, config: &Config) -> (Overrides, Made) {
    let made = Made {
        key: (config.keys.is_empty() && config.oidc.is_empty()).then(|| random("sk-sp-")),
        admin_key: (config.admin.key.is_none() && variable("SWITCHPOINT_ADMIN_KEY").is_none())
            .then(|| random("sk-sp-admin-")),
    };
    let admin_key = made.admin_key.clone().or_else(|| variable("SWITCHPOINT_ADMIN_KEY"));
    let (listen, admin_listen) = (arguments.listen, arguments.admin_listen);
    let key = made.key.clone();
    let apply = move |config: &mut Config| {
        if let Some(listen) = listen {
            config.server.listen = vec![listen];
        }
        if let Some(listen) = admin_listen {
            config.admin.listen = listen;
        }
        if config.admin.key.is_none() {
            config.admin.key = admin_key.clone().map(Secret::new);
        }
        if let (true, Some(key)) = (config.keys.is_empty(), &key) {
            let key =
                config::Key { secret: Some(Secret::new(key.clone())), ..config::Key::default() };
            config.keys.insert(MADE_KEY.to_owned(), key);
        }
    };
    (Box::new(apply), made)
}

/// A key made at the start is no protection for a listener that others reach.
fn refuse_exposed_admin(
    arguments: &ServeArguments,
    config: &Config,
    made: &Made,
    path: Option<&PathBuf>,
) -> Result<(), NoStart> {
    if config.admin.listen.ip().is_loopback() || made.admin_key.is_none() {
        return Ok(());
    }
    let file = path.cloned().unwrap_or_else(|| PathBuf::from("environment"));
    let place = if arguments.admin_listen.is_some() { "--admin-listen" } else { "admin.listen" };
    Err(NoStart::Config(vec![Problem {
        file,
        line: 0,
        path: place.to_owned(),
        message: "an admin listener other than loopback needs `admin.key` or \
                  SWITCHPOINT_ADMIN_KEY"
            .to_owned(),
    }]))
}

fn telemetry(config: &Config) -> Result<Telemetry, NoStart> {
    let format = match config.telemetry.log {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    };
    let output = Box::new(io::stdout());
    let log = Log::start(format, config.telemetry.access_log, output)
        .map_err(|error| NoStart::Io("cannot start the log", error))?;
    log.install(&config.telemetry.level);
    let traces = config.telemetry.otlp.as_ref().map(Traces::new);
    Telemetry::new(log)
        .map(|telemetry| telemetry.tracing(traces))
        .map_err(|error| NoStart::Io("cannot set up metrics", io::Error::other(error)))
}

/// The way to the collector of traces, if there is one.
pub(super) fn collector(config: &Config, client: &Client) -> Result<Option<Collector>, Fault> {
    let collector = config.telemetry.otlp.as_ref().map(|otlp| Collector::new(otlp, client));
    collector.transpose().map_err(|problem| ("telemetry.otlp".to_owned(), problem))
}

/// 192 random bits behind a prefix that secret scanners can know.
fn random(prefix: &str) -> String {
    let mut bytes = [0; 24];
    // Without randomness from the system nothing here is safe, so an all-zero key is never used.
    if getrandom::fill(&mut bytes).is_err() {
        return String::new();
    }
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The gateway and all that keeps it running.
struct House {
    gateway: Arc<Gateway>,
    agents: Agents,
    reloader: Arc<Reloader>,
    workers: Arc<Workers>,
    made: Made,
}

/// The signals that are listened to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl House {
    async fn serve(self, exporting: Option<Exporting>) -> Result<(), NoStart> {
        // Not the snapshot: what only it has, such as tools, is to go when another one is served.
        let config = Box::new(self.gateway.snapshot().config.clone());
        let config = &*config;
        for warning in &config.warnings {
            tracing::warn!(%warning, "the config works, but should not stay so");
        }
        let certificate = certificate(config)
            .map_err(|problem| NoStart::Config(located(self.reloader.path(), &[problem])))?;
        let listeners = config.server.listen.iter().map(|address| listener(*address));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let admin = listener(config.admin.listen)?;
        let signals = Signals::listen()?;
        self.load_directory().await?;
        self.seed().await?;
        self.reloader.begin().await;
        // Which agents begin no runs is known before anybody can ask for one.
        self.agents.know_paused().await;
        mcp::launch_by(child::command());
        self.gateway.tend_tools();
        self.maintain(certificate.clone())?;

        let (stop, closing) = (watch::Sender::new(false), watch::Sender::new(Closing::NotYet));
        let (connections, background) = (Tasks::default(), Tasks::default());
        let observed = Observed::default();
        let door = Door {
            workers: Arc::clone(&self.workers),
            tasks: connections.clone(),
            closing: closing.subscribe(),
            limits: Limits { head: config.server.head_timeout, idle: config.server.idle_timeout },
            max_connections: config.server.max_connections,
            open: Arc::clone(&observed.connections),
            turned_away: Arc::clone(&observed.turned_away),
            tls: certificate.map(tls::server).transpose().map_err(no_tls)?,
        };
        let admin_address = address_of(&admin)?;
        self.open_admin(&background, door.limits, admin, observed)?;
        let mut addresses = Vec::new();
        let api = Api::new(Arc::clone(&self.gateway), self.agents.clone());
        for listener in listeners {
            addresses.push(address_of(&listener)?);
            let accept = door.clone().accept(listener, api.clone(), stop.subscribe());
            background.spawn(async {
                let _ = accept.await;
            });
        }
        let banner = banner::text(config, &addresses, admin_address, &self.made);
        // Where lines are JSON, each line is.
        match config.telemetry.log {
            LogFormat::Json => complain(&banner),
            LogFormat::Text => say(&banner),
        }
        self.run_until_told(signals, &stop, &closing, &connections).await;
        if let Some(exporting) = exporting {
            let _ = tokio::time::timeout(LAST_WRITES, exporting.end()).await;
        }
        tracing::info!(open = connections.running(), "stopped");
        self.gateway.telemetry.log.end(LAST_WORDS);
        Ok(())
    }

    /// Takes over the keys that were made at run time; later, if the store is away.
    async fn load_directory(&self) -> Result<(), NoStart> {
        match self.gateway.load_directory().await {
            Err(error) if !error.is_away() => {
                let error = io::Error::other(error);
                Err(NoStart::Io("cannot read the keys made at run time", error))
            }
            Err(_) => {
                self.gateway.load_saved_directory().await;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tells budgets what was spent before; later, if the store is away.
    async fn seed(&self) -> Result<(), NoStart> {
        match self.gateway.seed(Past::All).await {
            Err(error) if !error.is_away() => {
                let error = io::Error::other(error);
                Err(NoStart::Io("cannot read what was spent before", error))
            }
            Err(_) => {
                self.gateway.seed_later(Past::All, self.gateway.doubt());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Operators have a worker of their own, so that no scrape holds a stream up.
    fn open_admin(
        &self,
        background: &Tasks,
        limits: Limits,
        listener: TcpListener,
        observed: Observed,
    ) -> Result<(), NoStart> {
        let workers =
            Workers::start(1).map_err(|error| NoStart::Io("cannot start a worker", error))?;
        // It answers until the very end, so that the drain can be watched.
        let never = watch::Sender::new(Closing::NotYet);
        let door = Door {
            closing: never.subscribe(),
            workers: Arc::new(workers),
            tasks: Tasks::default(),
            open: Arc::default(),
            turned_away: Arc::default(),
            max_connections: 256,
            tls: None,
            limits,
        };
        let key = self.gateway.snapshot().config.admin.key.clone();
        let key = key.unwrap_or_else(|| Secret::new(random("")));
        let api = AdminApi {
            gateway: Arc::clone(&self.gateway),
            reloader: Arc::clone(&self.reloader),
            workers: Arc::clone(&self.workers),
            key,
            observed,
        };
        background.spawn(async move {
            // Who never says anything has to be there.
            let (_closes, stops) = (never, watch::Sender::new(false));
            let _ = door.accept(listener, api, stops.subscribe()).await;
        });
        Ok(())
    }

    /// Starts what goes on in the background for as long as the process lives.
    fn maintain(&self, certificate: Option<Arc<Certificate>>) -> Result<(), NoStart> {
        let tasks = Tasks::default();
        for worker in self.workers.handles() {
            let gateway = Arc::clone(&self.gateway);
            tasks.spawn_on(worker, sweep(gateway));
        }
        tasks.spawn(keep_store(Arc::clone(&self.gateway)));
        tasks.spawn(Arc::clone(&self.gateway).follow_batches());
        tasks.spawn(Arc::clone(&self.gateway).keep_directory());
        tasks.spawn(Arc::clone(&self.gateway).keep_shared());
        tasks.spawn(Arc::clone(&self.gateway).follow_answers());
        tasks.spawn(Arc::clone(&self.reloader).keep_secrets());
        let agents = self.agents.clone();
        tasks.spawn(async move { agents.tend().await });
        if let config::Source::File(path) = &self.gateway.snapshot().config.source {
            let reloader = Arc::clone(&self.reloader);
            let reload = move || reload_changed(Arc::clone(&reloader));
            tasks.spawn(at_each_change(path, reload)?);
        }
        let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
        let reloader = Arc::clone(&self.reloader);
        let renewed = certificate.clone();
        tasks.spawn(async move {
            while hangup.recv().await.is_some() {
                let _ = reloader.reload("signal").await;
                renew(renewed.as_deref());
            }
        });
        let Some(certificate) = certificate else { return Ok(()) };
        for path in certificate.paths() {
            let certificate = Arc::clone(&certificate);
            let renew = move || {
                renew(Some(&certificate));
                ready(())
            };
            tasks.spawn(at_each_change(path, renew)?);
        }
        Ok(())
    }

    /// Serves until a signal; then drains: not ready, no new connections, open streams have their
    /// grace, what is left gets a last event. A second signal ends the grace.
    async fn run_until_told(
        &self,
        mut signals: Signals,
        stop: &watch::Sender<bool>,
        closing: &watch::Sender<Closing>,
        connections: &Tasks,
    ) {
        signals.next().await;
        let server = self.gateway.snapshot().config.server.clone();
        tracing::info!(open = connections.running(), "draining");
        self.gateway.drain();
        tokio::select! {
            () = tokio::time::sleep(server.drain_delay) => {}
            () = signals.next() => {}
        }
        stop.send_replace(true);
        closing.send_replace(Closing::Soon);
        let quiet = async {
            connections.finished().await;
            // Responses that are made in the background have the same grace.
            self.gateway.tasks.finished().await;
        };
        tokio::select! {
            () = quiet => {}
            () = tokio::time::sleep(server.drain) => {}
            () = signals.next() => {}
        }
        self.agents.close().await;
        self.gateway.end_calls();
        closing.send_replace(Closing::Now);
        let _ = tokio::time::timeout(LAST_WORDS, connections.finished()).await;
        let _ = tokio::time::timeout(LAST_WRITES, self.gateway.tasks.finished()).await;
        self.gateway.leave_shared().await;
        self.gateway.recorder.finish();
        let store = self.gateway.store();
        let written = tokio::time::timeout(LAST_WRITES, store.flush()).await;
        if !matches!(written, Ok(Ok(()))) {
            let (lost, later) = (store.ledger_unwritten(), store.ledger_pending());
            tracing::error!(
                lost_calls = lost,
                pending_records = later,
                "the store could not be written to the end; what only pends is in the journal and \
                 taken in at the next start"
            );
        }
    }
}

impl Signals {
    fn listen() -> Result<Self, NoStart> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(no_signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(no_signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn sweep(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        gateway.client.sweep();
    }
}

/// Deletes what has expired, and once an hour what need not be kept any longer. Shows how the store
/// does.
async fn keep_store(gateway: Arc<Gateway>) {
    let retention = gateway.snapshot().config.store.retention_days;
    let (mut sweeping, mut retaining) = (interval(SWEEP), interval(RETAIN));
    loop {
        // The writer logs its own failures.
        tokio::select! {
            _ = sweeping.tick() => drop(gateway.store().sweep().await),
            _ = retaining.tick() => drop(gateway.store().retain(retention).await),
        }
    }
}

async fn reload_changed(reloader: Arc<Reloader>) {
    let _ = reloader.reload_changed().await;
}

fn at_each_change<F: Future<Output = ()> + Send>(
    path: &Path,
    act: impl Fn() -> F + Send + 'static,
) -> Result<impl Future<Output = ()> + Send + 'static, NoStart> {
    let mut watch = config::watch::watch(path)
        .map_err(|error| NoStart::Io("cannot watch a file", io::Error::other(error)))?;
    Ok(async move {
        while watch.changed().await.is_some() {
            act().await;
        }
    })
}

pub(super) fn certificate(config: &Config) -> Result<Option<Arc<Certificate>>, Fault> {
    let load = |tls: &config::Tls| Certificate::load(&tls.cert, &tls.key).map(Arc::new);
    let loaded = config.server.tls.as_ref().map(load).transpose();
    loaded.map_err(|error| ("server.tls".to_owned(), error.to_string()))
}

fn renew(certificate: Option<&Certificate>) {
    match certificate.map(Certificate::reload) {
        Some(Ok(())) => tracing::info!("the certificate was read again"),
        Some(Err(error)) => tracing::error!(%error, "the old certificate stays"),
        None => {}
    }
}

fn listener(address: SocketAddr) -> Result<TcpListener, NoStart> {
    bind(address).map_err(|error| {
        let error = io::Error::new(error.kind(), format!("{address}: {error}"));
        NoStart::Io("cannot listen", error)
    })
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, NoStart> {
    listener.local_addr().map_err(|error| NoStart::Io("cannot listen", error))
}

fn no_tls(error: io::Error) -> NoStart {
    NoStart::Io("cannot set up TLS", error)
}

fn no_signals(error: io::Error) -> NoStart {
    NoStart::Io("cannot listen for signals", error)
}
