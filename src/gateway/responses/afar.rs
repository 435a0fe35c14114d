//! The stream of a response that another process makes, or has left unmade: what it has said stands
//! in the store, and how it ended its run knows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Gateway;
use super::detached::{Cutter, KEPT, Log};
use crate::canon::{Owner, RunId};
use crate::dialect::responses::state;
use crate::store::ObjectKind;

/// How often is looked for more, and how often at least where nothing comes.
const LOOK: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(1);
/// How long whoever makes it may take to tell its end, when the run is over.
const GRACE: Duration = Duration::from_secs(10);
const ENDS: [&str; 5] =
    ["response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"];

/// What was said so far, by whomever.
#[derive(Default)]
struct Told {
    events: usize,
    /// Of what was kept.
    bytes: usize,
    last: Option<u64>,
    ended: bool,
    /// How many items were begun.
    items: u64,
    /// The items that were told to their end, by their ids, and their texts.
    ids: HashSet<String>,
    texts: HashSet<String>,
}

impl Gateway {
    /// Tells a stream in the background on, as it comes to the store, and its end as its run knows
    /// it where nobody has told that. `after`: the number that its client has seen. What stands in
    /// `log` already, its own process has told, and tells no more.
    pub(super) async fn tell_from_afar(
        self: Arc<Self>,
        (owner, id): (Owner, String),
        log: Arc<Log>,
        after: Option<u64>,
    ) {
        let (mut told, mut over, mut last) = (Told::default(), None, Instant::now());
        told.hear(log.whole(), &Log::default());
        let is_left = told.events > 0;
        let mut look = LOOK;
        let keepalive = self.snapshot().config.server.keepalive;
        // Whoever has left holds it no more.
        while Arc::strong_count(&log) > 1 {
            // Asked first: what ends in between is found ended.
            let stored = self.stored(&owner, &id).await;
            let before = told.events;
            if let Ok(Some(kept)) = self.store().get(&owner, ObjectKind::Events, &id).await {
                told.hear(kept.value, &log);
            }
            let Ok(stored) = stored else { break };
            // Who is cut off here joins it again, at another process.
            if told.ended || self.is_draining() {
                break;
            }
            look = (look * 2).min(SELDOM);
            if told.events > before {
                (over, last, look) = (None, Instant::now(), LOOK);
            }
            let since = *over.get_or_insert_with(Instant::now);
            if stored.is_unfinished() {
                over = None;
            } else if told.events == 0
                || is_left
                || since.elapsed() >= GRACE
                || self.was_left(&owner, stored.run()).await
            {
                self.tell_rest(&told, &log, &owner, id, &stored.response, after);
                break;
            }
            if last.elapsed() >= keepalive {
                last = Instant::now();
                log.push(None, Bytes::from_static(b": ka\n\n"));
            }
            sleep(look).await;
        }
        log.end();
    }
}

impl Gateway {
    /// Tells what was not told yet of a response that is over.
    fn tell_rest(
        &self,
        told: &Told,
        log: &Log,
        owner: &Owner,
        id: String,
        response: &Value,
        after: Option<u64>,
    ) {
        for (number, event) in told.rest(response, after) {
            log.push(Some(number), event);
        }
        if after <= told.last {
            self.shelf.put(owner, ObjectKind::Events, id, log.whole(), KEPT);
        }
    }

    /// Whether a run was taken up again since it was begun: who began it tells no more of it.
    async fn was_left(&self, owner: &Owner, run: Option<RunId>) -> bool {
        let Some(run) = run else { return true };
        let row = self.store().run(Some(owner), run).await;
        row.is_ok_and(|row| row.is_none_or(|row| row.epoch > 1))
    }
}

/// Whether the last of these events ends an answer.
pub(super) fn is_whole(events: &Bytes) -> bool {
    let mut told = Told::default();
    told.hear(events.clone(), &Log::default());
    told.ended
}

// === impl Told ===

impl Told {
    /// Takes in the events of a stream from its beginning, and adds those that are new.
    fn hear(&mut self, kept: Bytes, log: &Log) {
        // It only ever grows.
        if kept.len() <= self.bytes {
            return;
        }
        self.bytes = kept.len();
        for (number, bytes, _) in Cutter::default().cut(kept).into_iter().skip(self.events) {
            self.events += 1;
            self.last = number.or(self.last);
            let event = read(&bytes);
            let kind = event["type"].as_str().unwrap_or_default();
            self.ended |= ENDS.contains(&kind);
            match kind {
                "response.output_item.added" => self.items += 1,
                "response.output_item.done" => {
                    self.ids.extend(event["item"]["id"].as_str().map(str::to_owned));
                }
                "response.output_text.done" => {
                    self.texts.extend(event["text"].as_str().map(str::to_owned));
                }
                _ => {}
            }
            log.push(number, bytes);
        }
    }

    /// What of a response was not told yet, numbered on.
    fn rest(&self, response: &Value, after: Option<u64>) -> Vec<(u64, Bytes)> {
        let mut open = response.clone();
        if let Some(items) = open["output"].as_array_mut() {
            items.retain(|item| !self.knows(item));
        }
        let begins = if self.events == 0 { 0 } else { self.last.max(after).map_or(0, |it| it + 1) };
        let events = Cutter::default().cut(state::replay(&open).into());
        let events = events.iter().map(|(_, bytes, _)| read(bytes)).filter(|event| {
            let is_first = ["response.created", "response.in_progress"].map(Value::from);
            self.events == 0 || !is_first.contains(&event["type"])
        });
        let spell = |(number, mut event): (u64, Value)| {
            event["sequence_number"] = json!(number);
            if let Some(place) = event["output_index"].as_u64() {
                event["output_index"] = json!(place + self.items);
            }
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            if ENDS.contains(&&*kind) {
                event["response"] = response.clone();
            }
            (number, Bytes::from(format!("event: {kind}\ndata: {event}\n\n")))
        };
        (begins..).zip(events).map(spell).collect()
    }

    fn knows(&self, item: &Value) -> bool {
        let known = item["id"].as_str().is_some_and(|id| self.ids.contains(id));
        let texts = item["content"].as_array().into_iter().flatten();
        let mut texts = texts.filter_map(|part| part["text"].as_str()).peekable();
        known || texts.peek().is_some() && texts.all(|text| self.texts.contains(text))
    }
}

/// The data of one event.
fn read(bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let data = text.lines().find_map(|line| line.strip_prefix("data: "));
    data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(items: &Value) -> Value {
        json!({"id": "resp_1", "status": "completed", "output": items})
    }

    fn message(id: &str, text: &str) -> Value {
        json!({"type": "message", "id": id, "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]})
    }

    fn numbers(rest: &[(u64, Bytes)]) -> Vec<u64> {
        rest.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn what_was_told_is_not_told_again_and_the_rest_is_numbered_on() {
        let all = response(&json!([message("a", "One."), message("b", "Two.")]));
        let whole = state::replay(&all);
        let events = Cutter::default().cut(whole.into());
        // Of the second message, the beginning was told.
        let cut = events.iter().take(events.len() - 4);
        let cut: Bytes = cut.map(|(_, bytes, _)| &bytes[..]).collect::<Vec<_>>().concat().into();
        assert!(!is_whole(&cut));
        let mut told = Told::default();
        told.hear(cut, &Log::default());
        let last = told.last.unwrap();
        let rest = told.rest(&all, Some(last));
        assert_eq!(numbers(&rest), (last + 1..).take(rest.len()).collect::<Vec<_>>());
        let text: String =
            rest.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
        let (before, end) = text.rsplit_once("event: response.completed").unwrap();
        assert!(before.contains("Two.") && !before.contains("One."), "{before}");
        assert!(end.contains("One.") && end.contains("Two."), "{end}");
        let added = read(&rest[0].1);
        assert_eq!(
            (&added["type"], &added["output_index"]),
            (&json!("response.output_item.added"), &json!(2))
        );
        // A client that had seen more than was kept misses nothing.
        let rest = told.rest(&all, Some(last + 7));
        assert_eq!(rest[0].0, last + 8);
    }

    #[test]
    fn a_stream_of_which_nothing_was_kept_is_told_from_its_beginning() {
        let all = response(&json!([message("a", "One.")]));
        let rest = Told::default().rest(&all, Some(3));
        assert_eq!(numbers(&rest), (0..rest.len() as u64).collect::<Vec<_>>());
        let whole: Vec<&[u8]> = rest.iter().map(|(_, bytes)| &bytes[..]).collect();
        assert!(is_whole(&whole.concat().into()));
    }
}
