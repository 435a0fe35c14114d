//! What a call holds besides what one target may cost it: what those before are charged for, and
//! the question of the loser where two are asked at the same time.

use super::call::Call;
use super::snapshot::Target;
use super::till::A_MOMENT;
use crate::access::account::{Demand, Denial, Hold};
use crate::canon::Usage;
use crate::error::Error;

/// Another target is about to be asked: what it may need is held as it was for the first one, beside
/// what was used until now. Who is to carry on (`carries`) is shown what was written, too. The
/// error says that there is no room for all that.
pub(super) async fn hold(call: &mut Call, place: usize, carries: bool) -> Result<(), Error> {
    let Some(held) = call.till.hold.as_ref().map(Hold::reserved) else { return Ok(()) };
    let next = call.chain.as_ref().and_then(|chain| chain.targets.get(place));
    let written = call.attempts().iter().filter_map(|attempt| attempt.usage);
    let written = written.map(|usage| usage.output).sum();
    let shown = Usage { input: written, ..Usage::default() };
    let shown = next.filter(|_| carries).map(|next| call.weigh(next, shown));
    if let Some(more) = call.lacks(held, shown.unwrap_or_default()) {
        grow(call, more).await.map_err(|denial| call.denied(&denial))?;
    }
    // The next answer is as long as was expected of the first.
    call.till.room = call.till.need.map(|(_, room)| room);
    Ok(())
}

/// Holds so much more, and waits for the other replicas where these have to be asked.
pub(super) async fn grow(call: &mut Call, more: Demand) -> Result<(), Denial> {
    let mut grown = Ok(());
    while call.till.is_holding() {
        match call.grow(more) {
            Ok(true) => {
                call.note_held();
                break;
            }
            // They are being asked.
            Ok(false) => tokio::time::sleep(A_MOMENT / 10).await,
            Err(denial) => {
                grown = Err(denial);
                break;
            }
        }
    }
    call.till.asked = None;
    grown
}

// === impl Call ===

impl Call {
    /// Whether some target has used something for it, and another one is to answer.
    pub(super) fn is_charged(&self) -> bool {
        let used = |usage: Usage| usage.total() > 0;
        self.attempts().iter().any(|attempt| attempt.usage.is_some_and(used))
    }

    /// What has to be held besides what is, if one more target is asked and so much may be used
    /// beside it.
    pub(super) fn lacks(&self, held: Demand, beside: Demand) -> Option<Demand> {
        let charged = self.attempts().iter().filter_map(|attempt| {
            let target = self.asked(&attempt.provider, &attempt.model)?;
            Some(self.weigh(target, attempt.usage?))
        });
        let add = |all: Demand, one: Demand| Demand {
            tokens: all.tokens.saturating_add(one.tokens),
            nanos: all.nanos.saturating_add(one.nanos),
            ..all
        };
        let (need, _) = self.till.need?;
        let all = charged.chain([beside]).fold(need, add);
        let tokens = all.tokens.saturating_sub(held.tokens);
        let nanos = all.nanos.saturating_sub(held.nanos);
        (tokens > 0 || nanos > 0).then_some(Demand { tokens, nanos, priced: true })
    }

    /// What this comes to with a target.
    pub(super) fn weigh(&self, target: &Target, usage: Usage) -> Demand {
        let price = target.info.price.as_ref();
        Demand {
            tokens: self.house.config.token_weights.count(&usage),
            nanos: price.map_or(0, |price| price.cost(&usage).nanos()),
            priced: price.is_some(),
        }
    }
}
