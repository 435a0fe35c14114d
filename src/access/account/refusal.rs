//! Why a call may not go ahead, and when it may.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, Zoned};

use super::purse::Purse;
use super::share::Room;
use super::state::Meter;
use super::status::{Amount, instant};
use super::{Account, Scope};
use crate::config::Unit;
use crate::error::retry_after_seconds;

/// One limit or budget that has no room for a call.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub dimension: Dimension,
    pub scope: Scope,
    pub name: Arc<str>,
    /// In requests, calls, tokens or nano-dollars, as the next three.
    pub limit: u64,
    pub used: u64,
    /// Of calls in flight. Limits by time have it in `used`.
    pub reserved: u64,
    pub asked: u64,
    /// `m` for a minute, or a budget's window as it was written.
    pub window: String,
    /// When all of it is there again.
    pub resets_at: Option<Zoned>,
    /// When such a call fits in if no other comes before it. `None`: never, or when some call in
    /// flight has ended, which nobody knows.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    Requests,
    Tokens,
    Concurrency,
    Budget(Unit),
    /// There is a budget in money, and nobody knows what the call costs.
    Unpriced,
}

/// Who of several objections is told. The later, the more it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Until some call in flight ends.
    Soon,
    For(Duration),
    Never,
    Unpriced,
}

/// The weightiest objection so far.
#[derive(Default)]
pub(super) struct Found<'a> {
    account: Option<&'a Account>,
    worst: Option<(Weight, Box<Refusal>)>,
    /// It needs nobody else to be known.
    is_final: bool,
}

/// Why nothing was taken.
#[derive(Debug)]
pub struct Denial {
    pub refusal: Box<Refusal>,
    /// Otherwise there may be room, and the other replicas have to be asked.
    pub is_final: bool,
}

// === impl Found ===

impl<'a> Found<'a> {
    /// Whose objections come next.
    pub(super) fn of(&mut self, account: &'a Account) -> &mut Self {
        self.account = Some(account);
        self
    }

    pub(super) fn verdict(&mut self) -> Result<(), Denial> {
        let is_final = self.is_final;
        self.worst.take().map_or(Ok(()), |(_, refusal)| Err(Denial { refusal, is_final }))
    }

    /// Whether there is something to object. What is certain goes before what is only possible.
    pub(super) fn objects(&mut self, room: Room) -> bool {
        if room == Room::None && !self.is_final {
            (self.is_final, self.worst) = (true, None);
        }
        match room {
            Room::Enough => false,
            Room::Unknown => !self.is_final,
            Room::None => true,
        }
    }

    pub(super) fn concurrency(&mut self, limit: u64, in_flight: u64) {
        self.note(Weight::Soon, |refusal| Refusal {
            limit,
            used: in_flight,
            asked: 1,
            ..refusal(Dimension::Concurrency)
        });
    }

    pub(super) fn pace(&mut self, dimension: Dimension, meter: &Meter, asked: u64, steady: u64) {
        let wait = meter.fits_at(asked).map(|at| Duration::from_nanos(at.saturating_sub(steady)));
        self.note(wait.map_or(Weight::Never, Weight::For), |refusal| Refusal {
            limit: meter.pace.amount,
            used: meter.sum(),
            asked,
            window: span(meter.pace.seconds).to_owned(),
            retry_after: wait,
            ..refusal(dimension)
        });
    }

    pub(super) fn budget(&mut self, purse: &Purse, asked: u64, reserved: u64, wall: Timestamp) {
        let at = purse.fits_at(asked, reserved);
        let wait = at.map(|at| Duration::try_from(at.duration_since(wall)).unwrap_or_default());
        let weight = match wait {
            Some(wait) => Weight::For(wait),
            None if asked <= purse.left(0) => Weight::Soon,
            None => Weight::Never,
        };
        self.note(weight, |refusal| Refusal {
            asked,
            retry_after: wait,
            ..of_budget(refusal(Dimension::Budget(purse.budget.unit)), purse, reserved)
        });
    }

    pub(super) fn unpriced(&mut self, purse: &Purse, reserved: u64) {
        self.note(Weight::Unpriced, |refusal| {
            of_budget(refusal(Dimension::Unpriced), purse, reserved)
        });
    }

    fn note(
        &mut self,
        weight: Weight,
        fill: impl FnOnce(&dyn Fn(Dimension) -> Refusal) -> Refusal,
    ) {
        let Some(account) = self.account else { return };
        if self.worst.as_ref().is_some_and(|(worst, _)| *worst >= weight) {
            return;
        }
        let blank = |dimension| Refusal {
            dimension,
            scope: account.scope,
            name: Arc::clone(&account.name),
            limit: 0,
            used: 0,
            reserved: 0,
            asked: 0,
            window: String::new(),
            resets_at: None,
            retry_after: None,
        };
        self.worst = Some((weight, Box::new(fill(&blank))));
    }
}

fn of_budget(refusal: Refusal, purse: &Purse, reserved: u64) -> Refusal {
    Refusal {
        limit: purse.limit(),
        used: purse.used(),
        reserved,
        window: purse.budget.label.clone(),
        resets_at: purse.resets_at(),
        ..refusal
    }
}

fn span(seconds: u64) -> &'static str {
    match seconds {
        1 => "s",
        60 => "m",
        3600 => "h",
        _ => "d",
    }
}

// === impl Dimension, Refusal ===

impl Dimension {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
            Self::Budget(Unit::Tokens) => "budget_tokens",
            Self::Budget(Unit::Usd) => "budget_usd",
            Self::Unpriced => "unpriced",
        }
    }
}

impl Refusal {
    /// The code of the error that a client is told.
    pub fn code(&self) -> &'static str {
        match self.dimension {
            Dimension::Requests | Dimension::Tokens | Dimension::Concurrency => "rate_limited",
            Dimension::Budget(_) => "budget_exceeded",
            Dimension::Unpriced => "unpriced_model",
        }
    }
}

/// A sentence for the client.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dimension {
            Dimension::Requests => self.tell_pace("requests", formatter),
            Dimension::Tokens => self.tell_pace("tokens", formatter),
            Dimension::Concurrency => {
                let (scope, name, limit) = (self.scope.name(), &self.name, self.limit);
                write!(
                    formatter,
                    "The {scope} `{name}` may have {limit} calls at once and has them."
                )
            }
            Dimension::Budget(unit) => self.tell_budget(unit, formatter),
            Dimension::Unpriced => {
                let (scope, name) = (self.scope.name(), &self.name);
                write!(
                    formatter,
                    "The {scope} `{name}` has a budget in USD, and nobody knows what this model \
                     costs; its price belongs into the gateway's config, or \"free\"."
                )
            }
        }
    }
}

impl Refusal {
    fn tell_pace(&self, what: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, name, limit, window) =
            (self.scope.name(), &self.name, self.limit, &self.window);
        write!(formatter, "The {scope} `{name}` has a limit of {limit} {what}/{window}, ")?;
        let Some(wait) = self.retry_after else {
            let asked = self.asked;
            return write!(formatter, "and this call alone may take {asked}.");
        };
        let (used, asked) = (self.used, self.asked);
        let seconds = retry_after_seconds(wait);
        write!(formatter, "of which {used} are taken; this call may take {asked}. ")?;
        write!(formatter, "Try again in {seconds} s.")
    }

    fn tell_budget(&self, unit: Unit, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, name, window) = (self.scope.name(), &self.name, &self.window);
        let amount = |value| Amount { unit, value };
        let (limit, used) = (amount(self.limit), amount(self.used));
        let (reserved, asked) = (amount(self.reserved), amount(self.asked));
        write!(formatter, "The {scope} `{name}` has a budget of {limit} (window {window}): ")?;
        write!(formatter, "{used} used, {reserved} held by calls in flight; ")?;
        write!(formatter, "this call may take {asked}.")?;
        match &self.resets_at {
            Some(at) => write!(formatter, " It resets at {}.", instant(at)),
            None => Ok(()),
        }
    }
}
