//! Everything known about one call; when it ends, by any road, it is recorded once.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::agents::{Receipt, Report};
use super::arrival::Question;
use super::ask::{Answer, Answered};
use super::bearings::Bearings;
use super::chain::{Chain, Wishes};
use super::guarding::Guarding;
use super::journey::Made;
use super::recording::Taken;
use super::remember::{Recalled, Recording};
use super::responses::Keeping;
use super::rival::Rival;
use super::snapshot::{Limits, Snapshot, Target};
use super::tape::Tape;
use super::task::Decision;
use super::till::Till;
use super::{Gateway, guarding, journey};
use crate::access::Caller;
use crate::access::account::Hold;
use crate::canon::{
    Attempt, CallId, CallRecord, Outcome, Owner, Purpose, RunState, Surface, Usage, UsageSource,
};
use crate::dialect::keepsake::Keepsake;
use crate::dialect::passage::Sight;
use crate::dialect::peek::StreamOptions;
use crate::dialect::{self, ClientSide};
use crate::error::Error;
use crate::net::patience::Busy;
use crate::net::shed::Permit;
use crate::provider::Failure;
use crate::route::load::InFlight;

/// One call. It travels from the door through the attempts into the body of the reply; dropping it
/// anywhere on that way settles it.
pub(super) struct Call {
    pub(super) gateway: Arc<Gateway>,
    pub(super) house: Arc<Snapshot>,
    pub(super) started: Instant,
    pub(super) chain: Option<Arc<Chain>>,
    /// Whose call it is; `None` until its key was admitted.
    pub(super) caller: Option<Caller>,
    /// Whose things it may use.
    pub(super) owner: Option<Arc<str>>,
    pub(super) till: Till,
    /// The attempt under way.
    pub(super) current: Option<Current>,
    /// A second one for the same, should the first be slow.
    pub(super) rival: Option<Rival>,
    /// How the call finds its way.
    pub(super) bearings: Bearings,
    /// Bytes of the question, to estimate its tokens by.
    input_bytes: usize,
    /// Its tokens, where somebody had to know.
    input_tokens: Option<u64>,
    /// The client wants a stream's usage itself.
    pub(super) usage_asked: bool,
    /// The response is to be kept.
    pub(super) keeping: Option<Keeping>,
    /// What guards it, if anything does.
    pub(super) guarding: Option<Box<Guarding>>,
    /// Nothing is to be sent: its client wants to know what would be.
    only_explained: bool,
    /// Its client wants to know how its way was chosen.
    pub(super) explains: bool,
    /// How it was.
    pub(super) explanation: Option<HeaderValue>,
    /// Its answer is to be remembered.
    pub(super) recording: Option<Box<Recording>>,
    /// Its answer was asked for by somebody else.
    pub(super) recalled: Option<Recalled>,
    pub(super) record: CallRecord,
    /// Where whoever runs an agent reads what this has come to.
    pub(super) receipt: Option<Arc<OnceLock<Receipt>>>,
    /// How the run stands that it has asked for.
    pub(super) run: Option<watch::Receiver<Report>>,
    /// What is kept of it in a file.
    pub(super) taken: Option<Box<Taken>>,
    /// What its trace is to show.
    pub(super) tape: Option<Box<Tape>>,
    /// `None` until it is known; a call that is dropped before was left by its client.
    outcome: Option<Outcome>,
    _permit: Option<Permit>,
    /// Its client's connection is kept for it.
    busy: Option<Busy>,
}

/// An attempt that is under way, or whose answer is being passed on.
pub(super) struct Current {
    /// Its target's place in the chain.
    place: usize,
    /// Which of the provider's credentials it is made with.
    credential: usize,
    pub(super) since: Instant,
    /// Some of its request has left.
    pub(super) left: AtomicBool,
    /// Held as long as the target has work with it.
    in_flight: Option<InFlight>,
    /// Of the target's own limits.
    pub(super) hold: Option<Hold>,
}

/// So many fields that a target could not take are named, and no longer ones.
const MOST_DROPPED: usize = 32;
const LONGEST_DROPPED: usize = 64;

// === impl Call ===

impl Call {
    /// A call that goes by `house` to its end, as does all that is called for it.
    pub(super) fn open(
        (gateway, house): (Arc<Gateway>, Arc<Snapshot>),
        surface: Surface,
        permit: Option<Permit>,
        busy: Option<Busy>,
    ) -> Box<Self> {
        let record = CallRecord::new(CallId::new(), SystemTime::now(), surface, house.generation);
        Box::new(Self {
            gateway,
            house,
            started: Instant::now(),
            chain: None,
            caller: None,
            owner: None,
            till: Till::default(),
            current: None,
            rival: None,
            bearings: Bearings::default(),
            input_bytes: 0,
            input_tokens: None,
            usage_asked: false,
            keeping: None,
            guarding: None,
            only_explained: false,
            explains: false,
            explanation: None,
            recording: None,
            recalled: None,
            record,
            receipt: None,
            run: None,
            taken: None,
            tape: None,
            outcome: None,
            _permit: permit,
            busy,
        })
    }

    pub(super) fn surface(&self) -> Surface {
        self.record.surface
    }

    /// The side of the dialect that this client sees.
    pub(super) fn client(&self) -> &'static dyn ClientSide {
        dialect::client(self.record.surface)
    }

    /// Whose things this call may use; `None` until its key was admitted.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.owner.clone().map(Owner::new)
    }

    /// Keeps what the provider wants back and the client may not carry.
    pub(super) fn keep(&self, keepsakes: Vec<Keepsake>) {
        if let Some(owner) = self.owner().filter(|_| !keepsakes.is_empty()) {
            self.gateway.shelf.keep(&owner, keepsakes);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn goes_to_background(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    /// What its route wants besides its targets; `None` until it has one.
    pub(super) fn wishes(&self) -> Option<&Wishes> {
        self.chain.as_ref().map(|chain| &chain.wishes)
    }

    /// The name of the key that pays for it.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        self.record.key.as_ref()
    }

    /// The call is made for another one, by the same key.
    pub(super) fn serves(&mut self, other: &Self) {
        self.record.key.clone_from(&other.record.key);
        self.caller.clone_from(&other.caller);
        self.owner.clone_from(&other.owner);
        self.record.purpose = Purpose::Classifier;
        self.belongs_to(other);
    }

    /// The call repeats another one for comparison.
    pub(super) fn shadows(&mut self, other: &Self) {
        self.record.key.clone_from(&other.record.key);
        self.owner.clone_from(&other.owner);
        self.record.purpose = Purpose::Shadow;
        self.belongs_to(other);
    }

    /// An operator makes the call, of one target.
    pub(super) fn drills(&mut self, limit: Duration) {
        self.record.purpose = Purpose::Drill;
        self.bearings.timeout = Some(limit);
    }

    /// The call is not made: it is told how it would go.
    pub(super) fn mark_not_made(&mut self) {
        self.only_explained = true;
    }

    pub(super) fn is_only_explained(&self) -> bool {
        self.only_explained
    }

    /// The door that it would come in by.
    pub(super) fn would_come_by(&mut self, surface: Surface) {
        self.record.surface = surface;
    }

    /// What the call is for.
    pub(super) fn set_task(&mut self, decision: Decision) {
        let by = decision.by.name();
        let task = decision.task.map_or("none", crate::canon::Task::name);
        if !self.only_explained {
            self.gateway.telemetry.metrics.tasks.with_label_values(&[task, by]).inc();
        }
        (self.record.task, self.record.task_by) = (decision.task, Some(by));
        self.bearings.task = Some(decision);
    }

    pub(super) fn task(&self) -> Option<crate::canon::Task> {
        self.record.task
    }

    /// The name of the route that was asked for.
    pub(super) fn route_name(&self) -> Arc<str> {
        self.record.route.clone().unwrap_or_default()
    }

    /// A number that no other call has, for choices left to chance.
    pub(super) fn draw(&self) -> u64 {
        self.record.id.random()
    }

    /// Some time up to `pause`, another one for each pause and call.
    pub(super) fn jitter(&self, pause: Duration) -> Duration {
        let most = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let draw = self.draw().rotate_left(17) ^ most.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Duration::from_micros(draw % most.saturating_add(1))
    }

    /// Whether a target that has failed this call may be asked again, as far as all calls of the
    /// process together may do that.
    pub(super) fn take_retry(&self, target: &Target, reason: &str) -> bool {
        let may = self.gateway.retries.withdraw(1, Instant::now());
        if may {
            let labels = [&*target.provider.name, reason];
            self.gateway.telemetry.metrics.retries.with_label_values(&labels).inc();
        }
        may
    }

    /// What a writer of answers must know of this call, besides question and model: its id as 32
    /// digits, and when it came, in seconds since 1970.
    pub(super) fn stamp(&self) -> (String, u64) {
        let since = self.record.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (self.record.id.simple(), since.as_secs())
    }

    pub(super) fn admitted(&mut self, caller: &Caller) {
        self.record.key = Some(Arc::clone(caller.key()));
        self.owner = Some(Arc::clone(caller.owner()));
        self.caller = Some(caller.clone());
    }

    /// From where its client calls, if that is over the network.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.busy.as_ref()?.peer()
    }

    /// Whether its key lets this target answer. Who tells the kind of work is the config's choice.
    pub(super) fn may_use(&self, target: &Target) -> bool {
        let caller = self.caller.as_ref().filter(|_| self.record.purpose.is_callers());
        caller.is_none_or(|caller| caller.may_use(&target.provider.name, &target.model))
    }

    pub(super) fn routed(&mut self, chain: &Arc<Chain>, question: &Question) {
        self.record.route = Some(Arc::clone(&chain.name));
        self.record.stream = question.envelope.stream;
        self.chain = Some(Arc::clone(chain));
        self.usage_asked = question.envelope.stream_options == StreamOptions::Asked;
        self.measures(question);
    }

    /// Notes how long the question is.
    pub(super) fn measures(&mut self, question: &Question) {
        self.input_bytes = question.payload.len();
        let relayed = question.relayed.as_ref();
        self.input_tokens = relayed.and_then(|it| it.input_estimate(question.payload.len()));
    }

    /// The target of the attempt under way.
    pub(super) fn target(&self) -> Option<&Target> {
        self.chain.as_ref()?.targets.get(self.current.as_ref()?.place)
    }

    /// When the call must be over, with this target.
    pub(super) fn end(&self, limits: &Limits) -> Instant {
        let total = self.bearings.timeout.map_or(limits.total, |timeout| timeout.min(limits.total));
        self.started + total
    }

    /// Whether the client's own limit is over, before the one that the target has.
    pub(super) fn is_hurried(&self, target: &Target) -> bool {
        let shorter = self.bearings.timeout.filter(|timeout| *timeout < target.limits.total);
        shorter.is_some_and(|timeout| self.started.elapsed() >= timeout)
    }

    /// A request to the target at `place` is about to leave, without the fields in `dropped`.
    pub(super) fn attempt_begins(
        &mut self,
        place: usize,
        credential: usize,
        dropped: &[Cow<'static, str>],
    ) {
        // Some are named as the client wrote them, so there is no end of them.
        let shown = dropped.iter().filter(|name| name.len() <= LONGEST_DROPPED);
        self.record.dropped = shown.take(MOST_DROPPED).cloned().collect();
        let now = Instant::now();
        if self.record.attempts.is_empty() {
            self.record.overhead = now - self.started;
        }
        let (left, in_flight, hold) = (AtomicBool::new(false), None, None);
        self.current = Some(Current { place, credential, since: now, left, in_flight, hold });
    }

    /// So much is held of the limits of the target that is being asked.
    pub(super) fn holds(&mut self, hold: Option<Hold>) {
        if let Some(current) = &mut self.current {
            current.hold = hold;
        }
    }

    /// The attempt under way has ended; the last one may also end with the call.
    pub(super) fn attempt_ended(&mut self, outcome: Outcome, status: u16) {
        self.current_ends(((outcome, status), None));
    }

    /// The attempt under way has failed.
    pub(super) fn attempt_failed(&mut self, failure: &Failure) {
        let used = failure.used.as_deref().copied();
        self.current_ends(((failure.outcome, failure.status), used));
    }

    /// The attempt under way has broken off in the middle of its answer, and another one is to go
    /// on.
    pub(super) fn attempt_broke(&mut self, failure: &Failure, sight: &Sight) {
        let (usage, _) = sight.used(self.input_estimate());
        self.current_ends(((failure.outcome, failure.status), Some(usage)));
    }

    /// What has been used of a target that was asked and not heard, if so much as a part of the
    /// question has left.
    pub(super) fn question_usage(&self, left: &AtomicBool) -> Option<Usage> {
        let left = left.load(Ordering::Relaxed);
        left.then(|| Usage { input: self.input_estimate(), ..Usage::default() })
    }

    /// Its client has left while a target was asked, which counts the question all the same.
    fn count_question(&mut self) {
        if self.surface().reads_text() && self.record.usage_source == UsageSource::None {
            self.usage(None, 0);
        }
    }

    pub(super) fn current_ends(&mut self, ended: ((Outcome, u16), Option<Usage>)) {
        if let Some(Current { place, since, hold, .. }) = self.current.take() {
            self.settle_attempt(hold, ended.1);
            self.note_attempt(place, since, ended);
        }
    }

    pub(super) fn note_attempt(
        &mut self,
        place: usize,
        since: Instant,
        ((outcome, status), usage): ((Outcome, u16), Option<Usage>),
    ) {
        let chain = self.chain.as_ref();
        let Some(target) = chain.and_then(|chain| chain.targets.get(place)) else { return };
        let (provider, model) = (Arc::clone(&target.provider.name), Arc::clone(&target.model));
        let elapsed = since.elapsed();
        let (cost, leg) = (None, self.leg(place, since));
        let attempt = Attempt { provider, model, outcome, status, elapsed, usage, cost, leg };
        self.record.attempts.push(attempt);
    }

    /// Takes in what the attempt under way was answered.
    /// The error is that of a guard which objects to it.
    pub(super) fn takes(&mut self, Made { answered, in_flight }: Made) -> Result<Answer, Error> {
        self.record.first_token.get_or_insert(answered.first_token - self.started);
        let Answered { answer, usage, keepsakes, response, finish, blocked, canon, lost, .. } =
            answered;
        self.record.dropped.extend(lost);
        self.record.finish = finish;
        if let Some((usage, output_estimate)) = usage {
            self.usage(usage, output_estimate);
        }
        if let Some(blocked) = blocked {
            self.end_answered();
            return Err(guarding::refusal(&blocked));
        }
        self.keep(keepsakes);
        if let Some(recording) = &mut self.recording {
            recording.response = canon;
        }
        if let Some((response, verbatim)) = response {
            self.keep_response(&response, verbatim);
        }
        if let Some(current) = &mut self.current {
            current.in_flight = Some(in_flight);
        }
        Ok(answer)
    }

    /// The attempt under way has been answered, though its answer is not passed on.
    pub(super) fn end_answered(&mut self) {
        self.attempt_ended(Outcome::Ok, 200);
    }

    /// The target has let its answer down after its first content.
    pub(super) fn broke_off(&self, failure: &Failure) {
        if let (Some(target), Some(current)) = (self.target(), &self.current) {
            target.lane(current.credential).report(journey::report(failure), Instant::now());
        }
    }

    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.record.attempts
    }

    /// As they were counted, or about four bytes a token.
    pub(super) fn input_estimate(&self) -> u64 {
        self.input_tokens.unwrap_or_else(|| (self.input_bytes as u64).div_ceil(4))
    }

    /// The question has so many tokens.
    pub(super) fn measured(&mut self, tokens: u64) {
        self.input_tokens = Some(tokens);
    }

    /// It is counted under another surface than its door's.
    pub(super) fn counts_as(&mut self, surface: Surface) {
        self.record.surface = surface;
    }

    pub(super) fn malformed(&mut self, events: u32) {
        self.record.malformed_events = events;
    }

    /// The call's end is known. Only the first word counts, which is given back.
    pub(super) fn ends(&mut self, outcome: Outcome) -> Outcome {
        *self.outcome.get_or_insert(outcome)
    }

    /// An answer that a guard has kept from its run is none, whatever was said in its place.
    fn judged(&self, outcome: Outcome) -> Outcome {
        let rejected = self.run.as_ref().map(|run| run.borrow().state) == Some(RunState::Rejected);
        if rejected && outcome == Outcome::Ok { Outcome::GuardBlocked } else { outcome }
    }

    /// When the request to the target at this place left.
    pub(super) fn departure(&self, place: usize) -> Option<Instant> {
        let current = self.current.as_ref().filter(|current| current.place == place);
        current.map(|current| current.since).or_else(|| Some(self.departed()?.since))
    }

    /// The place of the target of the attempt under way.
    pub(super) fn place(&self) -> Option<usize> {
        self.current.as_ref().map(|current| current.place)
    }
}

impl Drop for Call {
    /// The one end of every call: whatever the road, one record leaves here.
    fn drop(&mut self) {
        let abandoned = self.gateway.abandoned();
        let outcome = self.outcome.map_or(abandoned, |outcome| self.judged(outcome));
        let left = [abandoned, Outcome::GuardBlocked].contains(&outcome);
        let asked = self.current.as_ref().map(|current| current.left.load(Ordering::Relaxed));
        if left && asked == Some(true) {
            self.count_question();
        }
        let place = self.place();
        let status = if outcome == Outcome::Ok { self.record.status } else { 0 };
        self.rival_ended(None);
        self.attempt_ended(outcome, status);
        if self.only_explained {
            (self.record.surface, self.record.stream) = (Surface::Explain, false);
        }
        self.record.outcome = outcome;
        self.note_guards();
        self.note_caller();
        self.record.duration = self.started.elapsed();
        // The record tells of its last attempt itself.
        let last = self.record.attempts.last_mut().and_then(|attempt| attempt.usage.take());
        if let (Some(usage), UsageSource::None) = (last, self.record.usage_source) {
            (self.record.usage, self.record.usage_source) = (usage, UsageSource::Estimated);
        }
        if self.record.usage_source == UsageSource::None && self.record.usage_of_all().total() > 0 {
            self.record.usage_source = UsageSource::Estimated;
        }
        self.settle();
        self.hand_in_receipt();
        self.shows();
        let chain = self.chain.as_deref();
        let target = chain.zip(place).and_then(|(chain, place)| chain.targets.get(place));
        let target = target.or_else(|| self.last_target());
        let meters = target.map_or(&self.house.refusals, |target| &target.meters);
        self.gateway.telemetry.finish(&self.record, meters);
        if !self.only_explained {
            self.gateway.observe(&self.record, self.caller.is_some());
        }
        self.note_end();
        self.end_recording();
    }
}
