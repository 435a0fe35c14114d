//! Guards that are asked about a stream when all of it is told but its end, which waits for them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::Guarding;
use super::asking::Asker;
use super::late::{Late, Pending};
use super::notes::Said;
use crate::config::Stage;
use crate::error::Error;
use crate::gateway::call::Call;
use crate::guard::{Chain, Vault};

/// What a stream has told so far, part by part.
#[derive(Clone, Default)]
pub(super) struct Spoken(Arc<Mutex<Parts>>);

/// By choice and what the part is.
type Parts = BTreeMap<(u32, Stage), Vec<String>>;

/// Who is asked about one stream.
pub(in crate::gateway) struct After {
    asker: Asker,
    chains: [(Stage, Chain); 2],
    said: Arc<Said>,
    vault: Arc<Vault>,
    spoken: Spoken,
    asking: Option<Asking>,
}

type Asking = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

// === impl Spoken ===

impl Spoken {
    /// A part begins.
    pub(super) fn open(&self, place: (u32, Stage)) {
        self.with(|parts| parts.entry(place).or_default().push(String::new()));
    }

    pub(super) fn hear(&self, place: (u32, Stage), text: &str) {
        self.with(|parts| {
            let parts = parts.entry(place).or_default();
            match parts.last_mut() {
                Some(part) => part.push_str(text),
                None => parts.push(text.to_owned()),
            }
        });
    }

    /// All that was told there.
    fn texts(&self, stage: Stage) -> Vec<String> {
        self.with(|parts| {
            let there = parts.iter().filter(|((_, here), _)| *here == stage);
            let texts = there.flat_map(|(_, texts)| texts);
            texts.filter(|text| !text.is_empty()).cloned().collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Parts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl After ===

impl After {
    pub(super) fn new(guarding: &Guarding, call: &Call, model: &str) -> Self {
        let chains = [
            (Stage::Output, guarding.output.clone()),
            (Stage::ToolArgs, guarding.tool_args.clone()),
        ];
        Self {
            asker: Asker::of(call, model),
            chains,
            said: Arc::clone(&guarding.said),
            vault: Arc::clone(&guarding.vault),
            spoken: Spoken::default(),
            asking: None,
        }
    }

    pub(super) fn spoken(&self) -> Spoken {
        self.spoken.clone()
    }

    /// Whether nobody objects, when all have been asked.
    pub(in crate::gateway) fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.asking.is_none() {
            let late = self.late();
            self.asking = Some(Box::pin(late.ask()));
        }
        let Some(asking) = &mut self.asking else { return Poll::Ready(true) };
        asking.as_mut().poll(context).map(|verdict| verdict.is_ok())
    }

    fn late(&self) -> Late {
        let mut late = Late::new(self.asker.clone(), &self.said);
        for (stage, chain) in &self.chains {
            // What was put back is no more to be seen by others than it was in the question.
            let texts = self.spoken.texts(*stage);
            let texts: Vec<String> = texts.iter().map(|text| self.vault.conceal(text)).collect();
            let guards = chain.remote().iter();
            let pending = guards.map(|guard| Pending { guard: Arc::clone(guard), stage: *stage });
            late.add(pending, &texts);
        }
        late
    }
}
