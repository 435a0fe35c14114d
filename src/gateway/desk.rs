//! Where calls ask the other replicas for room, by way of the shared store. One task asks for all
//! that wait at the same time, tells what has been used, and returns what nobody here needs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::Gateway;
use crate::access::account::{
    Account, Demand, Denial, Hold, Inquiry, Moment, Said, Why, Wish, attempt,
};
use crate::store::shared::{Recalled, Shared, Told, Trouble};

/// A call that nobody can tell whether there is room for it waits so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// And so long for what others keep without using it.
const FOR_SLACK: Duration = Duration::from_millis(300);
/// Between two questions of one call, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(80);
/// How often the others are told what is new here, and heard.
const TICK: Duration = Duration::from_millis(100);
/// So many limits in one question, so that no other waits long behind it.
const BATCH: usize = 100;
/// Between two attempts to connect, at first and at most.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// What looking into the ledger may take, for what those have used who do not say so themselves.
/// Nothing is granted meanwhile.
const RECALL: Duration = Duration::from_millis(1500);
/// What the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Takes questions of calls.
#[derive(Debug)]
pub(super) struct Desk {
    shared: Mutex<Option<Shared>>,
    waiting: Mutex<Vec<Waiting>>,
    /// What is to be told of those who may not be there to say it.
    recalled: Mutex<Vec<Recalled>>,
    wake: Notify,
    /// Nobody can be asked now.
    away: AtomicBool,
    leaving: AtomicBool,
    left: Notify,
}

/// Calls that wait for room.
#[derive(Debug)]
struct Waiting {
    accounts: Vec<Arc<Account>>,
    /// None if a call wants more than it has.
    calls: u64,
    demand: Demand,
    /// Whether the others could be asked.
    answer: Option<oneshot::Sender<bool>>,
}

/// Who asks for all.
struct Clerk {
    gateway: Arc<Gateway>,
    shared: Shared,
    retry: Duration,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared: Mutex::new(Some(shared)),
            waiting: Mutex::default(),
            recalled: Mutex::default(),
            wake: Notify::new(),
            away: AtomicBool::new(true),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    /// Takes what a call may need of all its accounts. A denial that is not final says that nobody
    /// could be asked in time.
    pub(super) async fn hold(
        &self,
        accounts: &[Arc<Account>],
        demand: Demand,
    ) -> Result<Hold, Denial> {
        let mut inquiry = Inquiry { away: self.is_away(), ..Inquiry::default() };
        let denial = match attempt(accounts, demand, Moment::now(), inquiry) {
            Err(denial) if !denial.is_final => denial,
            verdict => return verdict,
        };
        let (begin, mut pause, mut denial) = (Instant::now(), Duration::ZERO, denial);
        while begin.elapsed() < PATIENCE {
            sleep(pause).await;
            pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
            let asked_at = Instant::now();
            let rest = PATIENCE.saturating_sub(begin.elapsed());
            let answered = timeout(rest, self.inquire(accounts, 1, demand)).await;
            let answered = answered.unwrap_or(false);
            inquiry = Inquiry {
                asked_at: answered.then_some(asked_at),
                is_last: begin.elapsed() >= FOR_SLACK,
                away: self.is_away(),
            };
            denial = match attempt(accounts, demand, Moment::now(), inquiry) {
                Err(denial) if !denial.is_final => denial,
                verdict => return verdict,
            };
        }
        Err(denial)
    }

    /// Whether nobody can be asked now.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Asks for more of what a call holds, without waiting for it.
    pub(super) fn ask_for_more(&self, accounts: &[Arc<Account>], demand: Demand) {
        self.queue(Waiting { accounts: accounts.to_vec(), calls: 0, demand, answer: None });
    }

    /// Has the others told what replicas have used that may be gone. Before there is a clerk nobody
    /// is: whoever begins tells all of it.
    pub(super) fn recall(&self, recalled: Vec<Recalled>) {
        let has_begun = self.shared.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if has_begun && !recalled.is_empty() {
            self.recalled.lock().unwrap_or_else(PoisonError::into_inner).extend(recalled);
            self.wake.notify_one();
        }
    }

    async fn inquire(&self, accounts: &[Arc<Account>], calls: u64, demand: Demand) -> bool {
        let (sender, receiver) = oneshot::channel();
        let accounts = accounts.to_vec();
        self.queue(Waiting { accounts, calls, demand, answer: Some(sender) });
        receiver.await.unwrap_or(false)
    }

    fn queue(&self, waiting: Waiting) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        self.wake.notify_one();
    }

    fn take_waiting(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all of them need of each account.
fn wishes(waiting: &[Waiting]) -> Vec<(Arc<Account>, Wish)> {
    let mut wishes: HashMap<*const Account, (Arc<Account>, Wish)> = HashMap::new();
    for one in waiting {
        for account in &one.accounts {
            let new = || (Arc::clone(account), Wish::default());
            let (_, wish) = wishes.entry(Arc::as_ptr(account)).or_insert_with(new);
            wish.add(one.calls, one.demand);
        }
    }
    wishes.into_values().collect()
}

// === impl Clerk ===

impl Clerk {
    async fn run(mut self, desk: &Desk) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !desk.leaving.load(Ordering::Relaxed) {
            if !self.shared.is_connected() && !self.connect(desk).await {
                desk.take_waiting().into_iter().for_each(|one| one.tell(false));
                // Whoever asks now waits for the next attempt.
                sleep(self.retry).await;
                self.retry = (self.retry * 2).min(LONGEST_RETRY);
                continue;
            }
            let outcome = tokio::select! {
                () = desk.wake.notified() => self.serve(desk).await,
                _ = tick.tick() => self.tell().await,
            };
            if let Err(trouble) = outcome {
                self.lose(desk, &trouble);
            }
        }
        let said = self.all(Why::Farewell);
        if timeout(FAREWELL, self.say(said, false)).await.is_err() {
            tracing::warn!("the other replicas could not be told the last");
        }
        desk.left.notify_one();
    }

    /// Connects, and announces everything that is known here.
    async fn connect(&mut self, desk: &Desk) -> bool {
        let connected = self.shared.connect().await.map_err(Trouble::Away);
        let announced = match connected {
            Ok(is_new) => self.announce(is_new).await,
            Err(trouble) => Err(trouble),
        };
        match announced {
            Ok(()) => {
                tracing::info!("the shared store is there");
                self.retry = RETRY;
                desk.away.store(false, Ordering::Relaxed);
                self.gateway.telemetry.metrics.shared_up.set(1);
                true
            }
            Err(trouble) => {
                self.lose(desk, &trouble);
                false
            }
        }
    }

    async fn announce(&mut self, is_new: bool) -> Result<(), Trouble> {
        if is_new {
            for batch in self.of_others().await.chunks(BATCH) {
                self.shared.recall(batch).await?;
            }
        }
        let said = self.all(Why::Announce);
        self.say(said, true).await
    }

    /// What the ledger says that others have used, of all budgets here. They are heeded before it
    /// where they are there; who is gone has no other voice.
    async fn of_others(&self) -> Vec<Recalled> {
        let (store, now) = (self.gateway.store(), Moment::now());
        let deadline = now.steady + RECALL;
        let accounts = self.gateway.snapshot().roster.accounts.all();
        let named = |account: &Arc<Account>| {
            let name = format!("{}:{}", account.scope.name(), account.name);
            let budgets = account.shared_budgets(now).into_iter();
            budgets.map(|budget| (name.clone(), budget)).collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        for (name, budget) in accounts.iter().flat_map(named) {
            let window = (budget.from.into(), None);
            let spent = timeout_at(deadline, store.spent(&name, budget.unit, window));
            let Ok(Ok(mut spent)) = spent.await else {
                tracing::warn!("the ledger does not tell what replicas have used that are gone");
                break;
            };
            spent.retain(|spent| *spent.node != **store.node());
            all.extend(budget.recalled(&spent, now.wall));
        }
        all
    }

    fn lose(&self, desk: &Desk, trouble: &Trouble) {
        // One that only forgot is announced to, and asked again, at once.
        let Trouble::Away(failure) = trouble else { return };
        if !desk.away.swap(true, Ordering::Relaxed) {
            tracing::error!(%failure, "budgets wait for the shared store");
        }
        self.gateway.telemetry.metrics.shared_up.set(0);
    }

    async fn serve(&mut self, desk: &Desk) -> Result<(), Trouble> {
        // First, so that who asks hears of it.
        let recalled = || desk.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        let to_tell = std::mem::take(&mut *recalled());
        for (place, batch) in to_tell.chunks(BATCH).enumerate() {
            if let Err(trouble) = self.shared.recall(batch).await {
                recalled().extend_from_slice(&to_tell[place * BATCH..]);
                desk.wake.notify_one();
                return Err(trouble);
            }
        }
        self.ask(desk.take_waiting()).await
    }

    async fn ask(&mut self, waiting: Vec<Waiting>) -> Result<(), Trouble> {
        let now = Moment::now();
        let asked = wishes(&waiting).into_iter().flat_map(|(account, wish)| account.ask(wish, now));
        let outcome = self.say(asked.collect(), false).await;
        for one in waiting {
            one.tell(outcome.is_ok());
        }
        outcome
    }

    /// Tells what is new here, hears the others, and returns what they wait for.
    async fn tell(&mut self) -> Result<(), Trouble> {
        let accounts = self.gateway.snapshot().roster.accounts.take_listed();
        let now = Moment::now();
        let said = accounts.iter().flat_map(|account| account.tell(Why::Due, now)).collect();
        self.say(said, false).await?;
        let board = Arc::clone(&self.gateway.snapshot().board);
        let hints = board.hints(now.steady);
        let begin = Instant::now();
        let news = self.shared.exchange(&hints).await?;
        self.observe("exchange", begin);
        let heard = news.hints.iter().map(|(age, text)| (*age, text.as_str()));
        board.heed(heard, Instant::now());
        if news.wanted.is_empty() {
            return Ok(());
        }
        let accounts = self.gateway.snapshot().roster.accounts.take_listed();
        let now = Moment::now();
        let is_wanted = |account: &Arc<Account>| {
            let prefix = account.shared_name();
            news.wanted.iter().any(|key| key.starts_with(&prefix))
        };
        let why = |account| if is_wanted(account) { Why::Wanted } else { Why::Due };
        let said = accounts.iter().flat_map(|account| account.tell(why(account), now)).collect();
        self.say(said, false).await
    }

    /// Of every account what there is to say.
    fn all(&self, why: Why) -> Vec<Said> {
        let now = Moment::now();
        let accounts = self.gateway.snapshot().roster.accounts.all();
        accounts.iter().flat_map(|account| account.tell(why, now)).collect()
    }

    /// `last`: everything is announced with these.
    async fn say(&mut self, said: Vec<Said>, last: bool) -> Result<(), Trouble> {
        let mut rest = said.as_slice();
        loop {
            let (batch, later) = rest.split_at(rest.len().min(BATCH));
            if batch.is_empty() && !(last && said.is_empty()) {
                return Ok(());
            }
            let claims: Vec<_> = batch.iter().map(|said| &said.claim).collect();
            let begin = Instant::now();
            match self.shared.claim(&claims, last && later.is_empty()).await {
                Ok(told) => {
                    self.observe("claim", begin);
                    batch.iter().zip(&told).for_each(|(said, told)| self.hear(said, told));
                }
                Err(trouble) => {
                    rest.iter().for_each(Said::mark_lost);
                    return Err(trouble);
                }
            }
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    fn observe(&self, what: &str, begin: Instant) {
        let seconds = &self.gateway.telemetry.metrics.shared_seconds;
        seconds.with_label_values(&[what]).observe(begin.elapsed().as_secs_f64());
    }

    fn hear(&self, said: &Said, told: &Told) {
        said.hear(told);
        if said.claim.ask > 0 {
            let outcome = if told.grant > 0 { "granted" } else { "refused" };
            self.gateway.telemetry.metrics.shared_leases.with_label_values(&[outcome]).inc();
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn tell(self, answered: bool) {
        // Who does not wait any more need not hear it.
        let _ = self.answer.map(|answer| answer.send(answered));
    }
}

// === impl Gateway ===

impl Gateway {
    /// Counts together with other replicas by way of this store from here on. Before the first
    /// call.
    pub fn share(&self, shared: Shared) {
        self.desk.get_or_init(|| Desk::new(shared));
    }

    pub(super) fn desk(&self) -> Option<&Desk> {
        self.desk.get()
    }

    /// Counts together with the other replicas, where a shared store is set, until told to leave.
    pub async fn keep_shared(self: Arc<Self>) {
        let Some(desk) = self.desk() else { return };
        let shared = desk.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(shared) = shared else { return };
        Clerk { gateway: Arc::clone(&self), shared, retry: RETRY }.run(desk).await;
    }

    /// Hears of the other replicas what they have used of these.
    pub async fn refresh(&self, accounts: &[Arc<Account>]) {
        if let Some(desk) = self.desk()
            && !desk.is_away()
            && !accounts.is_empty()
        {
            desk.inquire(accounts, 0, Demand::default()).await;
        }
    }

    /// Tells the other replicas the last, and returns to them what is not used.
    pub async fn leave_shared(&self) {
        let Some(desk) = self.desk() else { return };
        desk.leaving.store(true, Ordering::Relaxed);
        let _ = timeout(FAREWELL, desk.left.notified()).await;
    }
}
