//! Tools of others, by the Model Context Protocol: a server is a child process or somewhere on the
//! net, and what it can do is learned from it. What its tools do to the world, it is not believed.

mod answer;
mod call;
mod child;
mod ear;
mod http;
mod lines;
mod link;
mod pins;
mod pool;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rmcp::model::PaginatedRequestParams;
use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{Instant, timeout};

use self::call::Caller;
use self::child::Recipe;
pub use self::child::launch_by;
use self::http::Way;
use self::link::{Door, Session};
use self::pins::{Pins, Seen};
use self::pool::Pool;
use super::toolbox::Kit;
use super::{Definition, Health, PinStatus, Source, Tool};
use crate::config::{self, McpTool, McpTransport};
use crate::net::tasks::Tasks;
use crate::store::shared::Turns;
use crate::telemetry::{Counters, Gauges, Metrics};

/// How often it is looked whether a server is there.
const TICK: Duration = Duration::from_secs(2);
/// Pages of a list that are read, and tools.
const MOST_PAGES: usize = 100;
const MOST_TOOLS: usize = 2_000;
/// A list is not asked for more often, whatever its server says of its age.
const SHORTEST_AGE: Duration = Duration::from_secs(5);

/// What is counted of servers.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    pub(super) children: Gauges,
    pub(super) reconnects: Counters,
    pub(super) drift: Counters,
}

/// One server.
pub(super) struct Server {
    name: Arc<str>,
    pool: Arc<Pool>,
    pins: Pins,
    meters: Meters,
    /// Where replicas count together.
    turns: Option<Arc<Turns>>,
    tasks: Tasks,
    me: Weak<Self>,
    is_tended: AtomicBool,
    /// Who lists, lists alone.
    turn: Turn<Listed>,
    known: Mutex<Known>,
}

/// When the tools were listed.
#[derive(Debug, Default)]
struct Listed {
    was_listed: bool,
    /// When they must be listed again, if ever.
    until: Option<Instant>,
}

#[derive(Default)]
struct Known {
    tools: Arc<[Arc<Tool>]>,
    /// As the server describes them now.
    seen: Vec<Seen>,
    /// By name: as each was approved, where that is something else.
    drifted: BTreeMap<String, Seen>,
    trouble: Option<String>,
}

// === impl Server ===

impl Server {
    /// Nothing is opened before [`Source::refresh`].
    pub(super) fn new(
        name: &Arc<str>,
        terms: &Arc<config::Tool>,
        mcp: &McpTool,
        kit: &Kit<'_>,
    ) -> Result<Arc<Self>, String> {
        let door = door((name, terms), mcp, kit)?;
        let meters = Meters::of(kit.metrics);
        let pool = Arc::new(Pool::new((name, door), (terms, mcp), &meters));
        let pins = Pins::new(name, kit.store);
        Ok(Arc::new_cyclic(|me| Self {
            name: Arc::clone(name),
            pool,
            pins,
            meters,
            turns: kit.turns.cloned(),
            tasks: Tasks::default(),
            me: Weak::clone(me),
            is_tended: AtomicBool::new(false),
            turn: Turn::default(),
            known: Mutex::default(),
        }))
    }

    /// Looks after it until nobody has it any more.
    fn keep(&self) {
        if self.is_tended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (me, changed) = (Weak::clone(&self.me), Arc::clone(&self.pool.changed));
        self.tasks.spawn(keep(me, changed));
    }

    /// Brings what is known of it up to date, if it is not.
    async fn tend(&self, is_old: bool) {
        let mut listed = self.turn.lock().await;
        let mut trouble = self.pool.tend().await;
        let now = Instant::now();
        let is_due = !listed.was_listed || listed.until.is_some_and(|until| until <= now);
        let is_due = is_old || is_due || !self.lock().drifted.is_empty();
        if is_due && trouble.is_none() {
            match self.list(now).await {
                Ok(until) => *listed = Listed { was_listed: true, until },
                Err(why) => trouble = Some(why),
            }
        }
        self.lock().trouble = trouble;
    }

    /// Asks it for its tools; says until when that holds.
    async fn list(&self, now: Instant) -> Result<Option<Instant>, String> {
        let deadline = now + self.pool.mcp.connect_timeout;
        let session = self.pool.free().session(deadline).await.map_err(|error| error.message)?;
        if session.listens() {
            self.tasks.spawn(session.clone().listen(Arc::clone(&self.pool.changed)));
        }
        let listing = self.pages(&session);
        let (mut seen, age) = tokio::time::timeout_at(deadline, listing)
            .await
            .unwrap_or_else(|_| Err("its list of tools did not come in time".to_owned()))?;
        seen.retain(|seen| self.is_meant(&seen.name));
        seen.sort_by(|one, other| one.name.cmp(&other.name));
        seen.dedup_by(|one, other| one.name == other.name);
        self.learn(seen).await?;
        Ok(age.map(|age| now + age.max(SHORTEST_AGE)))
    }

    async fn pages(&self, session: &Session) -> Result<(Vec<Seen>, Option<Duration>), String> {
        let (mut seen, mut cursor) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let from = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = session.peer().list_tools(Some(from)).await;
            let page = page.map_err(|error| answer::failure(error).message)?;
            let age = page.ttl_ms.map(Duration::from_millis);
            seen.extend(page.tools.iter().map(Seen::of));
            cursor = page.next_cursor;
            if cursor.is_none() || seen.len() >= MOST_TOOLS {
                seen.truncate(MOST_TOOLS);
                return Ok((seen, age));
            }
        }
        Err("its list of tools does not end".to_owned())
    }

    fn is_meant(&self, tool: &str) -> bool {
        let Some(allowed) = &self.pool.mcp.allow else { return true };
        allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => tool.starts_with(prefix),
            None => tool == pattern,
        })
    }

    /// Takes over what it has said of its tools, as far as that was approved.
    async fn learn(&self, seen: Vec<Seen>) -> Result<(), String> {
        let drifted = match self.pool.mcp.pin {
            config::Pin::Off => BTreeMap::new(),
            config::Pin::FirstUse => self.pins.compare(&seen).await?,
        };
        let mut known = self.lock();
        let new = drifted.keys().filter(|tool| !known.drifted.contains_key(*tool));
        for tool in new {
            let server = &*self.name;
            tracing::warn!(server, tool, "an MCP server describes a tool otherwise than approved");
            self.meters.drift.with_label_values(&[server]).inc();
        }
        known.tools = seen
            .iter()
            .filter_map(|seen| self.tool(&known, seen, drifted.get(&seen.name)))
            .collect();
        known.seen = seen;
        known.drifted = drifted;
        Ok(())
    }

    fn tool(&self, known: &Known, seen: &Seen, approved: Option<&Seen>) -> Option<Arc<Tool>> {
        // What was not approved is not even shown.
        let shown = approved.unwrap_or(seen);
        let name = format!("{}.{}", self.name, seen.name);
        let former = known.tools.iter().find(|tool| *tool.name == *name);
        let is_same = || known.seen.contains(seen) && known.drifted.get(&seen.name) == approved;
        if let Some(former) = former.filter(|_| is_same()) {
            return Some(Arc::clone(former));
        }
        let terms = &self.pool.terms;
        let definition = Definition {
            name,
            description: shown.description.clone(),
            effect: terms.effects.get(&seen.name).copied().unwrap_or(terms.effect),
            input: shown.input.clone(),
            output: shown.output.clone(),
            terms: Arc::clone(terms),
        };
        let caller = Caller {
            pool: Arc::clone(&self.pool),
            tool: seen.name.clone(),
            has_drifted: approved.is_some(),
        };
        match Tool::new(definition, Arc::new(caller)) {
            Ok(tool) => {
                let tool = tool.together(self.turns.as_ref());
                Some(Arc::new(match former {
                    Some(former) => tool.following(former),
                    None => tool,
                }))
            }
            Err(why) => {
                let (server, tool) = (&*self.name, &seen.name);
                tracing::warn!(server, tool, why, "a tool of an MCP server cannot be used");
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Server {
    fn tools(&self) -> Arc<[Arc<Tool>]> {
        Arc::clone(&self.lock().tools)
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.keep();
            self.tend(false).await;
        })
    }

    fn health(&self) -> Health {
        match &self.lock().trouble {
            Some(why) => Health::Down { why: why.clone(), retry_after: None },
            None => Health::Up,
        }
    }

    fn pins(&self) -> Vec<PinStatus> {
        let known = self.lock();
        let state = |seen: &Seen| {
            let approved = known.drifted.get(&seen.name);
            PinStatus {
                tool: seen.name.clone(),
                pinned: approved.unwrap_or(seen).digest(),
                seen: seen.digest(),
                changed: approved.is_some(),
            }
        };
        match self.pool.mcp.pin {
            config::Pin::Off => Vec::new(),
            config::Pin::FirstUse => known.seen.iter().map(state).collect(),
        }
    }

    fn approve_pin<'a>(
        &'a self,
        tool: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let all = self.lock().seen.clone();
            let seen = all.iter().find(|seen| seen.name == tool);
            let seen = seen.ok_or_else(|| format!("{} has no tool `{tool}` now", self.name))?;
            self.pins.put(seen).await?;
            self.learn(all).await
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Server({})", self.name)
    }
}

// === impl Meters ===

impl Meters {
    fn of(metrics: &Metrics) -> Self {
        Self {
            children: metrics.mcp_children.clone(),
            reconnects: metrics.mcp_reconnects.clone(),
            drift: metrics.mcp_tool_drift.clone(),
        }
    }
}

/// Ends when nobody has the server any more.
async fn keep(server: Weak<Server>, changed: Arc<Notify>) {
    loop {
        let is_old = timeout(TICK, changed.notified()).await.is_ok();
        let Some(server) = server.upgrade() else { return };
        server.tend(is_old).await;
    }
}

fn door(
    (name, terms): (&Arc<str>, &Arc<config::Tool>),
    mcp: &McpTool,
    kit: &Kit<'_>,
) -> Result<Door, String> {
    match &mcp.transport {
        McpTransport::Stdio { command, env, cwd } => Ok(Door::Child(Recipe {
            server: Arc::clone(name),
            command: command.clone(),
            environment: env.clone(),
            folder: cwd.clone(),
            longest: terms.max_result,
        })),
        McpTransport::Http { url, web } => {
            let way = Way::new(kit.client, (url, web), (mcp.connect_timeout, terms.max_result))?;
            Ok(Door::Http(Arc::new(way)))
        }
    }
}
