//! What replicas tell one another through a Redis or Valkey: what each has used and may still take
//! of every limit, and which targets it leaves alone; turns of tools that are taken one after the
//! other; answers that are remembered together. Rows, lists and scripts; no decisions.
//!
//! One user drives a connection, one question at a time, so that no old answer overtakes a new one.

mod bulletin;
mod turns;
mod values;
mod wire;

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, TlsCertificates};

pub use bulletin::{Board, Bulletin, Note};
pub use turns::{Turn, Turns};
pub use values::Values;
pub use wire::{Claim, Recalled, Told, Used};

use super::Failure;
use crate::canon::CallId;

/// For so long others leave a node what it was granted without hearing of it.
pub const LEASE: Duration = Duration::from_secs(10);
/// After a server was started anew nothing is granted for so long, unless all have announced.
const PAUSE: Duration = Duration::from_secs(2);
/// What a question may take.
const PATIENCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(1);

const EPOCH: &str = "switchpoint/epoch";
const NODES: &str = "switchpoint/nodes";
const RUN: &str = "switchpoint/run";
const WANTED: &str = "switchpoint/wanted";
const HEALTH: &str = "switchpoint/health";
/// Limits stand below it.
pub const LIMITS: &str = "switchpoint/limit/";

/// Where the shared store is, and by whose word it is believed to be that.
#[derive(Clone)]
pub struct Address(Client);

/// The handle to the shared store. It connects when it is told to.
pub struct Shared {
    client: Client,
    node: String,
    /// Of this process alone, where the node's name outlives it.
    process: String,
    replicas: u32,
    link: Option<Link>,
    /// That it counted in last.
    epoch: Option<String>,
    scripts: Scripts,
}

struct Link {
    connection: MultiplexedConnection,
    epoch: String,
}

struct Scripts {
    hello: Script,
    claim: Script,
    exchange: Script,
    recall: Script,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The server cannot be reached, or not in time.
    Away(Failure),
    /// It may have forgotten something: everything is to be announced again.
    Forgotten,
}

/// What the others say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Limits of which somebody wants what others keep without using it.
    pub wanted: Vec<String>,
    /// How long ago it was said, and what.
    pub hints: Vec<(Duration, String)>,
}

// === impl Address ===

impl Address {
    /// Connects to nobody. With an authority in the PEM file `ca`, that one is believed and no
    /// other. The address may hold a password and is in no error.
    pub fn read(url: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        let wrong = |_| Failure::new("shared: the address cannot be read".to_owned());
        let Some(path) = ca else { return Client::open(url).map(Self).map_err(wrong) };
        let pem = std::fs::read(path)
            .map_err(|error| Failure::new(format!("shared_ca: {}: {error}", path.display())))?;
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
        let unusable = |_| Failure::new(format!("shared_ca: {}: no authority", path.display()));
        Client::build_with_tls(url, certificates).map(Self).map_err(unusable)
    }
}

// === impl Shared ===

impl Shared {
    pub fn open(address: Address, node: String, replicas: u32) -> Self {
        Self {
            client: address.0,
            process: format!("{node}~{}", CallId::new().simple()),
            node,
            replicas,
            link: None,
            epoch: None,
            scripts: Scripts {
                hello: Script::new(include_str!("hello.lua")),
                claim: Script::new(include_str!("claim.lua")),
                exchange: Script::new(include_str!("exchange.lua")),
                recall: Script::new(include_str!("recall.lua")),
            },
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Connects anew. Everything is to be announced then. Whether the server may also have
    /// forgotten what those have used who are not there to announce it.
    pub async fn connect(&mut self) -> Result<bool, Failure> {
        self.link = None;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(PATIENCE));
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connect.await.map_err(failure)?;
        let server: String =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(failure)?;
        let run = server.lines().find_map(|line| line.trim().strip_prefix("run_id:"));
        let mut hello = self.scripts.hello.key(EPOCH);
        hello.key(NODES).key(RUN).arg(run.unwrap_or_default()).arg(CallId::new().simple());
        let epoch: String = hello.invoke_async(&mut connection).await.map_err(failure)?;
        let is_new = self.epoch.as_ref() != Some(&epoch);
        self.epoch = Some(epoch.clone());
        self.link = Some(Link { connection, epoch });
        Ok(is_new)
    }

    /// Writes what these have used, unless they have said it themselves.
    pub async fn recall(&mut self, recalled: &[Recalled]) -> Result<(), Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::gone()) };
        let mut call = self.scripts.recall.key(EPOCH);
        call.arg(&link.epoch);
        for one in recalled {
            one.write(&mut call);
        }
        match call.invoke_async::<u8>(&mut link.connection).await {
            Ok(0) => {
                self.link = None;
                Err(Trouble::Forgotten)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Writes these claims and hears what is granted of each. `last`: everything is announced
    /// with them.
    pub async fn claim(&mut self, claims: &[&Claim], last: bool) -> Result<Vec<Told>, Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::gone()) };
        let mut call = self.scripts.claim.key(EPOCH);
        call.key(NODES).key(WANTED).arg(&self.node).arg(&link.epoch).arg(u8::from(last));
        call.arg(self.replicas).arg(LEASE.as_millis()).arg(PAUSE.as_millis());
        for claim in claims {
            claim.write(&mut call, &self.node, &self.process);
        }
        match call.invoke_async::<Vec<String>>(&mut link.connection).await {
            Ok(words) if words.first().is_some_and(|known| known == "0") => {
                self.link = None;
                Err(Trouble::Forgotten)
            }
            Ok(words) => wire::told(&words, claims).ok_or_else(Trouble::gone),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Says what the others should know, and hears what they say.
    pub async fn exchange(&mut self, hints: &str) -> Result<News, Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::gone()) };
        let mut call = self.scripts.exchange.key(WANTED);
        call.key(HEALTH).arg(&self.node).arg(hints);
        match call.invoke_async::<Vec<Vec<String>>>(&mut link.connection).await {
            Ok(lists) => Ok(wire::news(lists)),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// A connection that failed once is not used again: its answers could come late.
    fn lost(&mut self, error: RedisError) -> Trouble {
        self.link = None;
        Trouble::Away(failure(error))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shared({})", self.node)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn failure(error: RedisError) -> Failure {
    // Its own words may repeat what it was sent, and so a password.
    let code = error.code().unwrap_or_default();
    Failure::new(format!("the shared store does not answer: {} {code}", error.category()))
}

// === impl Trouble ===

impl Trouble {
    fn gone() -> Self {
        Self::Away(Failure::new("there is no connection to the shared store".to_owned()))
    }
}
