//! Has a config tried by some of the calls, and promotes it or takes it back, by what comes of it or
//! by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, sleep_until};

use super::generations::{Ending, Fate};
use super::reload::{Origin, Reloader, conflict};
use super::trial::{Terms, Trial};
use super::{Past, Snapshot, keep};
use crate::error::Error;
use crate::net::tasks::Tasks;
use crate::store::Audit;

/// How soon after a look at the figures there is another one.
const EVERY: Duration = Duration::from_millis(50);
/// As whom the history and the audit trail know what a trial comes to by itself.
const SELF: &str = "canary";

impl Reloader {
    /// Has `snapshot` tried by some of the calls from the next one on.
    pub(super) async fn try_out(
        self: &Arc<Self>,
        snapshot: Box<Snapshot>,
        terms: Terms,
        origin: Origin<'_>,
    ) -> u64 {
        let gateway = self.gateway();
        let live = gateway.snapshot();
        let mut noted = self.take_up(&snapshot, origin);
        noted.fate = Some(Fate { outcome: Ending::Trial, why: String::new() });
        let (candidate, doubt) = (gateway.adopt(snapshot), gateway.doubt());
        candidate.stand_beside(&live);
        let trial = Trial::new(candidate, live.generation, terms, origin.by, origin.ephemeral);
        gateway.telemetry.metrics.canary_generation.set(trial.generation().cast_signed());
        gateway.trial.store(Some(Arc::clone(&trial)));
        gateway.seed_later(Past::Before, doubt);
        let (generation, by, share) = (trial.generation(), origin.by, trial.terms.share);
        tracing::info!(generation, %by, share_permyriad = share, "a config is on trial");
        // Not one of those that the end of the process waits for.
        Tasks::default().spawn(Arc::clone(self).watch_over(trial));
        gateway.keep_generation(&noted).await;
        generation
    }

    /// Promotes the config on trial.
    pub async fn promote(&self, by: &str) -> Result<u64, Error> {
        self.decide(Ending::Promoted, by).await
    }

    /// Takes the config on trial back.
    pub async fn abort(&self, by: &str) -> Result<u64, Error> {
        self.decide(Ending::Aborted, by).await
    }

    async fn decide(&self, ending: Ending, by: &str) -> Result<u64, Error> {
        let _gate = self.gate().lock().await;
        let trial = self.gateway().trial().ok_or_else(|| conflict("No config is on trial."))?;
        if ending == Ending::Promoted && !trial.ephemeral {
            keep::may_write(self.file_path()?)?;
        }
        self.conclude(&trial, ending, format!("by {by}")).await;
        Ok(self.gateway().snapshot().generation)
    }

    /// Another config is about to be served in the place of both. The gate is held.
    pub(super) async fn replace_trial(&self, by: &str) {
        if let Some(trial) = self.gateway().trial() {
            self.conclude(&trial, Ending::Replaced, format!("by {by}")).await;
        }
    }

    /// Judges whenever a call has tried it, and at its end.
    async fn watch_over(self: Arc<Self>, trial: Arc<Trial>) {
        loop {
            let is_over = tokio::select! {
                () = trial.news.notified() => false,
                () = sleep_until(trial.end) => true,
            };
            if !self.is_current(&trial) {
                return;
            }
            if let Some(verdict) = judge(&trial, is_over) {
                self.end_by_itself(&trial, verdict).await;
                return;
            }
            sleep(EVERY).await;
        }
    }

    async fn end_by_itself(&self, trial: &Arc<Trial>, (ending, why): (Ending, String)) {
        let _gate = self.gate().lock().await;
        // Somebody may have been faster.
        if !self.is_current(trial) {
            return;
        }
        let before = self.gateway().snapshot().generation;
        self.conclude(trial, ending, why.clone()).await;
        let told = serde_json::json!({"canary": trial.generation(), "why": why});
        let change = Audit {
            at: SystemTime::now(),
            who: SELF.to_owned(),
            what: format!("config.{}", ending.name()),
            subject: String::new(),
            before: Some(serde_json::json!({"generation": before}).to_string()),
            after: Some(told.to_string()),
        };
        if self.gateway().store().audit(change).await.is_err() {
            tracing::error!(who = SELF, "a change is not in the audit trail");
        }
    }

    /// Ends the trial so. The gate is held.
    async fn conclude(&self, trial: &Arc<Trial>, ending: Ending, why: String) {
        let gateway = self.gateway();
        let promoted = ending == Ending::Promoted;
        if promoted {
            let ephemeral = self.write_promoted(trial);
            // Noted first: who sees it served is told why.
            self.note(trial, ephemeral, Fate { outcome: ending, why: why.clone() }).await;
            let doubt = gateway.doubt();
            gateway.swap(Arc::clone(&trial.candidate));
            self.note_served(ephemeral);
            gateway.seed_later(Past::Before, doubt);
        }
        gateway.trial.store(None);
        trial.news.notify_one();
        let metrics = &gateway.telemetry.metrics;
        metrics.canary_generation.set(0);
        metrics.canaries.with_label_values(&[ending.name()]).inc();
        let (generation, outcome) = (trial.generation(), ending.name());
        if ending == Ending::RolledBack {
            tracing::error!(generation, outcome, %why, "the trial of a config is over");
        } else {
            tracing::info!(generation, outcome, %why, "the trial of a config is over");
        }
        if !promoted {
            self.note(trial, trial.ephemeral, Fate { outcome: ending, why }).await;
        }
    }

    /// Writes into the history what became of a trial.
    async fn note(&self, trial: &Trial, ephemeral: bool, fate: Fate) {
        let gateway = self.gateway();
        if let Ok(Some(mut kept)) = gateway.generation(trial.generation()).await {
            (kept.fate, kept.ephemeral) = (Some(fate), ephemeral);
            gateway.keep_generation(&kept).await;
        }
    }

    /// Whether it came to stand in no file.
    fn write_promoted(&self, trial: &Trial) -> bool {
        if trial.ephemeral {
            return true;
        }
        let text = &trial.candidate.config.text;
        let written = self.file_path().and_then(|path| keep::write(path, text.whole()));
        if let Err(error) = &written {
            tracing::error!(%error, "the promoted config is served, but is not in the file");
        }
        written.is_err()
    }

    fn is_current(&self, trial: &Arc<Trial>) -> bool {
        self.gateway().trial().is_some_and(|current| Arc::ptr_eq(&current, trial))
    }
}

/// What a trial comes to, if that is known.
fn judge(trial: &Trial, is_over: bool) -> Option<(Ending, String)> {
    if let Some(why) = trial.fails() {
        return Some((Ending::RolledBack, why));
    }
    if !is_over {
        return None;
    }
    if !trial.is_tried() {
        let (calls, least) = (trial.figures().0[0], trial.terms.least);
        let why = format!("{calls} calls have tried it, of {least} that it takes to tell");
        return Some((Ending::RolledBack, why));
    }
    let calls = trial.figures().0[0];
    Some((Ending::Promoted, format!("{calls} calls have tried it")))
}
