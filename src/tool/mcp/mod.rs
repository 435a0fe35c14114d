//! Tools of others, by the Model Context Protocol: a server is a child process or somewhere on the
//! net, and what it can do is learned from it. What its tools do to the world, it is not believed.

mod answer;
mod aside;
mod call;
mod child;
mod ear;
mod exchange;
mod http;
mod lines;
mod link;
mod listing;
mod news;
mod pins;
mod pool;
mod shelf;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{Instant, timeout};

pub use self::aside::{Aside, Listener, Logs, Resumed};
use self::call::Caller;
use self::child::Recipe;
pub use self::child::launch_by;
pub use self::ear::{can_be_asked, filled};
use self::http::Way;
use self::link::{Around, Door, rest_after};
use self::listing::Listing;
use self::news::News;
pub use self::news::{Board, Change, Told};
use self::pins::{Pins, Seen};
use self::pool::Pool;
pub use self::shelf::Watch;
use self::shelf::Watched;
pub use self::wording::each_text;
use super::toolbox::Kit;
use super::{Definition, Health, PinStatus, Source, Tool, text};
use crate::config::{self, McpTool, McpTransport};
use crate::net::tasks::Tasks;
use crate::store::shared::Turns;
use crate::telemetry::{Counters, Gauges, Metrics};

/// How often it is looked whether a server is there.
const TICK: Duration = Duration::from_secs(2);
/// Pages of a list that are read.
const MOST_PAGES: usize = 100;
/// Why nothing is known of its tools yet.
const UNASKED: &str = "it was not asked yet what tools it has";
/// A list is not asked for more often, whatever its server says of its age.
const SHORTEST_AGE: Duration = Duration::from_secs(5);

/// What is counted of servers.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    pub(super) children: Gauges,
    pub(super) reconnects: Counters,
    pub(super) drift: Counters,
    pub(super) security: Counters,
}

/// One server.
pub struct Server {
    name: Arc<str>,
    pool: Arc<Pool>,
    news: News,
    watched: Mutex<Watched>,
    /// Who asks it to tell of something, asks alone.
    listening: Turn<()>,
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
    done: bool,
    /// When they must be listed again, if ever.
    until: Option<Instant>,
    /// In a row, and why: until then it is not asked again.
    failures: u32,
    why: Option<String>,
}

#[derive(Default)]
struct Known {
    tools: Arc<[Arc<Tool>]>,
    /// As the server describes them now.
    seen: Vec<Seen>,
    /// All that it says of each, by name.
    listed: BTreeMap<String, rmcp::model::Tool>,
    /// Of what it lists, the names of what is no tool.
    odd: BTreeSet<String>,
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
        board: &Board,
    ) -> Result<Arc<Self>, String> {
        let door = door(name, terms, mcp, kit)?;
        let meters = Meters::of(kit.metrics);
        let news = News::new(name, board);
        let around = Around {
            changed: Arc::default(),
            news: news.clone(),
            meters: meters.clone(),
            sampling: mcp.sampling,
        };
        let pool = Arc::new(Pool::new(name, door, terms, mcp, &around));
        let pins = Pins::new(name, kit.store);
        Ok(Arc::new_cyclic(|me| Self {
            name: Arc::clone(name),
            pool,
            news,
            watched: Mutex::default(),
            listening: Turn::default(),
            pins,
            meters,
            turns: kit.turns.cloned(),
            tasks: Tasks::default(),
            me: Weak::clone(me),
            is_tended: AtomicBool::new(false),
            turn: Turn::default(),
            known: Mutex::new(Known { trouble: Some(UNASKED.to_owned()), ..Known::default() }),
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
        let idle = self.pool.mcp.idle_kill.filter(|_| !self.is_watched());
        let mut trouble = self.pool.tend(idle).await;
        if trouble.is_none() {
            self.hear(is_old).await;
        }
        let now = Instant::now();
        let is_changed = is_old || !self.lock().drifted.is_empty();
        if listed.is_due(is_changed, now) && trouble.is_none() {
            match self.list_tools(now).await {
                Ok(until) => *listed = Listed { done: true, until, ..Listed::default() },
                Err(why) => listed.failed(&self.name, why, now),
            }
        }
        trouble = trouble.or_else(|| listed.why.clone());
        self.lock().trouble = trouble;
    }

    /// Asks it for its tools; says until when that holds.
    async fn list_tools(&self, now: Instant) -> Result<Option<Instant>, String> {
        let deadline = now + self.pool.mcp.connect_timeout;
        let session = self.pool.first().session(deadline).await.map_err(|error| error.message)?;
        let Listing { tools, odd, age } =
            tokio::time::timeout_at(deadline, Listing::read(session.peer()))
                .await
                .unwrap_or_else(|_| Err("its list of tools did not come in time".to_owned()))?;
        self.leave_out(odd);
        let meant = tools.into_iter().filter(|tool| self.is_meant(&tool.name));
        let listed: BTreeMap<_, _> =
            meant.map(|tool| (tool.name.clone().into_owned(), tool)).collect();
        self.learn(listed.values().map(Seen::of).collect()).await?;
        let mut known = self.lock();
        if known.listed != listed {
            known.listed = listed;
            self.news.tell(Change::Tools);
        }
        drop(known);
        Ok(age.map(|age| now + age.max(SHORTEST_AGE)))
    }

    /// Of what it lists and is no tool, each name is told once.
    fn leave_out(&self, odd: BTreeSet<String>) {
        let mut known = self.lock();
        for tool in odd.difference(&known.odd) {
            let server = &*self.name;
            tracing::warn!(server, tool, "an MCP server lists what is no tool; it is left out");
        }
        known.odd = odd;
    }

    /// All that it says of a tool, by its own name; nothing, where that is not what was approved.
    pub fn listed(&self, tool: &str) -> Option<rmcp::model::Tool> {
        let known = self.lock();
        let listed = known.listed.get(tool)?;
        (!known.drifted.contains_key(tool)).then(|| listed.clone())
    }

    fn is_pinning(&self) -> bool {
        self.pool.mcp.pin == config::Pin::FirstUse
    }

    fn is_meant(&self, tool: &str) -> bool {
        let Some(allowed) = &self.pool.mcp.allow else { return true };
        allowed.iter().any(|pattern| config::means(pattern, tool))
    }

    /// Takes over what it has said of its tools, as far as that was approved.
    async fn learn(&self, seen: Vec<Seen>) -> Result<(), String> {
        let drifted =
            if self.is_pinning() { self.pins.compare(&seen).await? } else { BTreeMap::new() };
        let mut known = self.lock();
        let new = drifted.keys().filter(|tool| !known.drifted.contains_key(*tool));
        for tool in new {
            let server = &*self.name;
            tracing::warn!(server, tool, "an MCP server describes a tool otherwise than approved");
            self.meters.drift.with_label_values(&[server]).inc();
            self.meters.security.with_label_values(&["tool_drift"]).inc();
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
        let (mut input, mut output) = (shown.input.clone(), shown.output.clone());
        for schema in [Some(&mut input), output.as_mut()].into_iter().flatten() {
            text::clean_value(schema);
        }
        let effect = terms.effects.get(&seen.name).copied().unwrap_or(terms.effect);
        let definition = Definition {
            name,
            description: text::clean(&shown.description).into_owned(),
            effect,
            input,
            output,
            is_held_to_it: true,
            version: self.is_pinning().then(|| shown.version()),
            terms: Arc::clone(terms),
        };
        let caller = Caller {
            pool: Arc::clone(&self.pool),
            tool: seen.name.clone(),
            effect,
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
    fn server(&self) -> Option<Arc<Server>> {
        self.me.upgrade()
    }

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
        if self.is_pinning() { known.seen.iter().map(state).collect() } else { Vec::new() }
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

// === impl Listed ===

impl Listed {
    fn is_due(&self, is_changed: bool, now: Instant) -> bool {
        match self.until {
            Some(until) if until > now => is_changed && self.failures == 0,
            Some(_) => true,
            None => is_changed || !self.done,
        }
    }

    /// What it has said before stays as it is.
    fn failed(&mut self, server: &str, why: String, now: Instant) {
        if self.why.as_ref() != Some(&why) {
            tracing::warn!(server, why, "the tools of an MCP server cannot be listed");
        }
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + rest_after(self.failures));
        self.why = Some(why);
    }
}

// === impl Meters ===

impl Meters {
    fn of(metrics: &Metrics) -> Self {
        Self {
            children: metrics.mcp_children.clone(),
            reconnects: metrics.mcp_reconnects.clone(),
            drift: metrics.mcp_tool_drift.clone(),
            security: metrics.agent_security_events.clone(),
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
    name: &Arc<str>,
    terms: &Arc<config::Tool>,
    mcp: &McpTool,
    kit: &Kit<'_>,
) -> Result<Door, String> {
    match &mcp.transport {
        McpTransport::Stdio { command, env, cwd } => Ok(Door::Child(Recipe {
            server: Arc::clone(name),
            command: command.clone(),
            environment: env.clone(),
            net: kit.net.clone(),
            folder: cwd.clone(),
            longest: terms.max_result,
        })),
        McpTransport::Http { url, web } => {
            let way = Way::new(kit.net, url, web, mcp.connect_timeout, terms.max_result)?;
            Ok(Door::Http(Arc::new(way)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_is_asked_for_later_each_time() {
        let (mut listed, now) = (Listed::default(), Instant::now());
        assert!(listed.is_due(false, now));
        let mut rests = Vec::new();
        for _ in 0..12 {
            listed.failed("small", "it does not end".to_owned(), now);
            assert!(!listed.is_due(true, now), "whatever has changed");
            rests.push(listed.until.unwrap() - now);
            assert!(listed.is_due(false, listed.until.unwrap()));
        }
        assert!(rests.is_sorted() && rests[0] < rests[3], "{rests:?}");
        listed = Listed { done: true, ..Listed::default() };
        assert!(listed.is_due(true, now) && !listed.is_due(false, now));
    }
}
