//! Runs as the store has them: journals, what was said before in their sessions, and what their
//! agents were.

use std::sync::Arc;

use super::definition::Definition;
use super::event::{Created, Event};
use super::journal::Halt;
use super::run::Run;
use super::staff::Staff;
use crate::canon::{Message, RunId, RunState};
use crate::store::runs::{EventRow, RunRow};

/// Entries that are read at once.
const PAGE: u32 = 1000;
/// Turns of a session that are remembered.
const MOST_TURNS: usize = 100;

/// A run as the store has it.
pub(super) struct Loaded {
    pub(super) run: Run,
    pub(super) last_at: u64,
}

impl Loaded {
    /// The run, if it waits since the last of its entries.
    pub(super) fn resting(mut self, state: RunState) -> Run {
        if state.is_waiting() {
            self.run.rests(state, self.last_at);
        }
        self.run
    }
}

/// How a run began, what has happened since, and when each entry was written, the first included.
struct Known {
    created: Created,
    events: Vec<Event>,
    times: Vec<u64>,
}

impl Staff {
    /// Reads a run from its journal.
    pub(super) async fn load(&self, row: &RunRow) -> Result<Loaded, Halt> {
        self.replayed(row, |_, _, _| {}).await
    }

    /// The same. `look` is shown the entries one by one: the run before that, it with those behind
    /// it, and when it was written.
    pub(super) async fn replayed(
        &self,
        row: &RunRow,
        mut look: impl FnMut(&Run, &[Event], u64) + Send,
    ) -> Result<Loaded, Halt> {
        let missing = || Halt::Store(format!("the journal of {} is not there", row.id));
        let known = self.known_entries(row.id).await?.ok_or_else(missing)?;
        let Known { created, events, times } = known;
        let history = self.history(created.previous).await?;
        let definition = self.definition(&created.definition).await?;
        let mut run = Run::new(row.id, created, definition, history);
        for (place, span) in times.windows(2).enumerate() {
            look(&run, &events[place..], span[1]);
            run.replays(&events[place..=place], span);
        }
        Ok(Loaded { run, last_at: times.last().copied().unwrap_or_default() })
    }

    /// How a run began, what has happened since, and when the last of it did.
    pub(super) async fn entries(&self, id: RunId) -> Result<(Created, Vec<Event>, u64), Halt> {
        let known = self.known_entries(id).await?;
        let known = known.map(|it| (it.created, it.events, it.times.last().copied().unwrap_or(0)));
        known.ok_or_else(|| Halt::Store(format!("the journal of {id} is not there")))
    }

    /// The same; `None` where there is no such run.
    async fn known_entries(&self, id: RunId) -> Result<Option<Known>, Halt> {
        let rows = self.rows(id).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let times = rows.iter().map(|row| row.at).collect();
        let read = |data: &str| {
            serde_json::from_str::<Event>(data)
                .map_err(|error| Halt::Store(format!("an entry of {id} makes no sense: {error}")))
        };
        let events = rows.iter().map(|row| read(&row.data)).collect::<Result<Vec<_>, _>>()?;
        let mut events = events.into_iter();
        let Some(Event::Created(created)) = events.next() else {
            return Err(Halt::Store(format!("the journal of {id} has no beginning")));
        };
        Ok(Some(Known { created: *created, events: events.collect(), times }))
    }

    /// A whole journal.
    pub(super) async fn rows(&self, id: RunId) -> Result<Vec<EventRow>, Halt> {
        let (mut rows, mut after) = (Vec::new(), 0);
        loop {
            let page = self.gateway.store().run_events(id, after, PAGE).await;
            let page = page.map_err(|failure| Halt::Store(failure.to_string()))?;
            let Some(last) = page.last() else { return Ok(rows) };
            after = last.seq;
            rows.extend(page);
        }
    }

    /// What was said in a session up to the end of this run.
    pub(super) async fn history(&self, last: Option<RunId>) -> Result<Vec<Message>, Halt> {
        let (mut turns, mut next) = (Vec::new(), last);
        while let Some(id) = next.take().filter(|_| turns.len() < MOST_TURNS) {
            // What is older than runs are kept is forgotten.
            let Some(Known { created, events, .. }) = self.known_entries(id).await? else { break };
            next = created.previous;
            turns.push((id, created, events));
        }
        let mut history = Vec::new();
        for (id, created, events) in turns.into_iter().rev() {
            let definition = self.definition(&created.definition).await?;
            let mut run = Run::new(id, created, definition, history);
            for event in &events {
                run.apply(event);
            }
            history = run.closed();
        }
        Ok(history)
    }

    pub(super) async fn definition(&self, hash: &str) -> Result<Arc<Definition>, Halt> {
        let body = self.gateway.store().definition(hash).await;
        let body = body.map_err(|failure| Halt::Store(failure.to_string()))?;
        let read = body.and_then(|body| serde_json::from_str(&body).ok());
        read.map(Arc::new).ok_or_else(|| Halt::Store(format!("the definition {hash} is not there")))
    }
}
