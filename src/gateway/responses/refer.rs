//! Items that a question refers to by their ids: whose they are, and what they say.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::shelf::RESPONSE;
use super::Gateway;
use super::stored::{Maker, Stored, told};
use crate::canon::{Dialect, Owner};
use crate::dialect::references;
use crate::dialect::splice::Payload;
use crate::error::{Error, Kind};
use crate::store::ObjectKind;

/// The turns in which items were said, with what was said in them and nothing else.
#[derive(Default)]
struct Turns {
    known: HashMap<String, Stored>,
    bytes: usize,
}

impl Gateway {
    /// Notes in which response an item was said.
    pub(super) fn index_items(&self, owner: &Owner, id: &str, stored: &Stored) {
        let items = stored.output().filter_map(|item| item["id"].as_str());
        for item in items {
            let value = Bytes::copy_from_slice(id.as_bytes());
            self.shelf.put(owner, ObjectKind::Item, item.to_owned(), value, RESPONSE);
        }
    }

    /// The question with the items that it refers to in the place of their ids, for `listeners` as
    /// `said` has them; `None` where it refers to none. What the conversation before it says is not
    /// said again.
    pub(in crate::gateway) async fn dereferenced(
        &self,
        (owner, question, previous): (&Owner, &Payload, Option<&str>),
        listeners: &[Option<Maker>],
    ) -> Result<Option<Bytes>, Error> {
        let body = question.to_bytes();
        let found = references::read(Some(Dialect::Responses), &body);
        let ids = found.ok_or_else(too_deep)?.items;
        if ids.is_empty() {
            return Ok(None);
        }
        let chain = match previous {
            Some(previous) => self.chain(owner, previous).await?,
            None => Vec::new(),
        };
        let said_before: HashSet<&str> = chain.iter().flat_map(Stored::ids).collect();
        let (mut items, mut turns) = (HashMap::new(), Turns::default());
        for id in ids {
            if said_before.contains(&*id) {
                items.insert(id, None);
                continue;
            }
            let Entry::Vacant(place) = items.entry(id) else {
                return Err(Error::invalid("An item stands in `input` twice."));
            };
            let (turn, item) = self.item(owner, place.key(), &mut turns).await?;
            let is_told = told(&item, turn.maker.as_ref(), listeners);
            place.insert(is_told.then_some(item));
        }
        let mut body: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|error| Error::invalid(error.to_string()))?;
        if let Some(input) = body.get_mut("input").and_then(Value::as_array_mut) {
            let named = std::mem::take(input).into_iter();
            input.extend(named.filter_map(|item| {
                let known = item["id"].as_str().and_then(|id| items.get(id));
                match known {
                    Some(known) if stands_for(&item) => known.clone(),
                    _ => Some(item),
                }
            }));
        }
        self.spell(&body).map(Some)
    }

    /// What was said under this id, and with what else.
    async fn item<'a>(
        &self,
        owner: &Owner,
        id: &str,
        turns: &'a mut Turns,
    ) -> Result<(&'a Stored, Value), Error> {
        let unknown = || {
            let message = format!("There is no item `{id}` of this key.");
            Error::new(Kind::NotFound, message)
        };
        let response = self.shelf.get(owner, ObjectKind::Item, id).await?.ok_or_else(unknown)?;
        let turn = match turns.known.entry(String::from_utf8_lossy(&response).into_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => {
                let turn = self.stored(owner, unread.key()).await;
                let mut turn = turn.map_err(|error| match error.kind {
                    Kind::NotFound => unknown(),
                    _ => error,
                })?;
                turn.input = Vec::new();
                turn.response = json!({"output": turn.response["output"].take()});
                turns.bytes += turn.response.to_string().len();
                self.check_size(turns.bytes)?;
                unread.insert(turn)
            }
        };
        let item = turn.output().find(|item| item["id"] == id).cloned().ok_or_else(unknown)?;
        Ok((turn, item))
    }
}

fn stands_for(item: &Value) -> bool {
    matches!(item["type"].as_str(), None | Some("item_reference" | "reasoning"))
        && item["role"].is_null()
}

fn too_deep() -> Error {
    Error::invalid("The body is nested too deeply to be looked through for what it refers to.")
}
