//! What others do for a run, and what it can take back of all that was done.

use serde_json::{Value, json};

use super::{Run, Stage, Undoable};
use crate::agent::event::Event;
use crate::canon::{RunId, RunState};

impl Run {
    /// What became of a run below it, or of what is taken back.
    pub(super) fn take_below(&mut self, event: &Event) {
        match event {
            Event::ChildStarted { id, run, .. } => {
                self.asked_anew = true;
                self.uses(id, true);
                self.stage(id, Stage::Child { run: *run });
            }
            Event::ChildWaits { run, spent, .. } => {
                self.below.insert(*run, *spent);
            }
            Event::ChildDone {
                id,
                run,
                state,
                parts,
                degraded,
                degraded_tools,
                spent,
                undoable,
            } => {
                self.below.insert(*run, *spent);
                self.degraded_tools.extend(degraded_tools.iter().cloned());
                if *undoable {
                    self.note_undo_below(id, *run);
                }
                if let Some(call) = self.call(id).filter(|_| *degraded) {
                    let tool = call.request.alias.clone();
                    self.degraded_tools.insert(tool);
                    self.degraded = true;
                }
                let failed = *state != RunState::Completed;
                self.broke |= failed && self.changes(id);
                self.settle(id, parts.clone(), failed);
            }
            Event::UndoBegan { id, .. } | Event::UndoDone { id, .. } => {
                let error = match event {
                    Event::UndoDone { error, .. } => Some(error),
                    _ => None,
                };
                if let Some(undo) = self.undoable.iter_mut().find(|undo| undo.id == *id) {
                    undo.began = true;
                    undo.over |= error.is_some();
                    undo.failed |= error.is_some_and(Option::is_some);
                }
            }
            _ => {}
        }
    }

    /// A call was done that its tool says how to take back.
    pub(super) fn note_undo(&mut self, id: &str, result: Option<&Value>) {
        let Some(call) = self.call(id) else { return };
        let mut members = self.definition.members.values();
        let undo = members.find_map(|member| member.tool(&call.request.tool)?.undo.as_ref());
        let Some(undo) = undo else { return };
        let args = filled(&undo.args, &call.request.args, result.unwrap_or(&Value::Null));
        let key = format!("{}-undo", call.request.key);
        let (id, tool) = (id.to_owned(), undo.tool.clone());
        let undo = Undoable { id, tool, args, key, ..Undoable::default() };
        self.undoable.push(undo);
    }

    /// What another run has done for a call can be taken back, too.
    pub(super) fn note_undo_below(&mut self, id: &str, run: RunId) {
        let Some(request) = self.call(id).map(|call| &call.request) else { return };
        let (id, tool) = (id.to_owned(), request.tool.clone());
        let (args, key) = (json!({"run": run}), format!("{}-undo", request.key));
        let undo = Undoable { id, tool, args, key, child: Some(run), ..Undoable::default() };
        self.undoable.push(undo);
    }
}

/// The arguments by which a call is taken back.
fn filled(pattern: &Value, args: &Value, result: &Value) -> Value {
    match pattern {
        Value::String(text) => {
            let asked = text.strip_prefix("$args.").map(|path| place(path, args));
            let given = || {
                let path = text.strip_prefix("$.")?;
                Some(place(path.strip_prefix("result.").unwrap_or(path), result))
            };
            asked.or_else(given).unwrap_or_else(|| pattern.clone())
        }
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), filled(value, args, result))).collect()
        }
        Value::Array(list) => list.iter().map(|value| filled(value, args, result)).collect(),
        other => other.clone(),
    }
}

/// What names and numbers with dots between them lead to.
fn place(path: &str, value: &Value) -> Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    let found = names.fold(value, |found, name| {
        let inner = match found {
            Value::Array(list) => name.parse::<usize>().ok().and_then(|at| list.get(at)),
            other => other.get(name),
        };
        inner.unwrap_or(&Value::Null)
    });
    found.clone()
}
