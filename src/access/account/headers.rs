//! What the usual `x-ratelimit-…` headers tell, in OpenAI's spelling.

use std::sync::Arc;
use std::time::Duration;

use super::state::Meter;
use super::{Account, Moment};

/// What a client is told of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// The limit on requests that has least left, and that on tokens; `None` where there is none.
pub fn rates(accounts: &[Arc<Account>], now: Moment) -> [Option<Rate>; 2] {
    let (mut requests, mut tokens) = (None, None);
    for account in accounts {
        let steady = account.nanos(now);
        let mut state = account.lock();
        state.advance((now.wall, steady));
        requests = tightest(requests, &state.requests, steady);
        tokens = tightest(tokens, &state.token_rates, steady);
    }
    [requests, tokens]
}

fn tightest(so_far: Option<Rate>, meters: &[Meter], steady: u64) -> Option<Rate> {
    let line = |meter: &Meter| Rate {
        limit: meter.pace.amount,
        remaining: meter.remaining(),
        reset: Duration::from_nanos(meter.empty_at().map_or(0, |at| at.saturating_sub(steady))),
    };
    let lines = so_far.into_iter().chain(meters.iter().map(line));
    lines.min_by_key(|line| (line.remaining, std::cmp::Reverse(line.reset)))
}

// === impl Rate ===

impl Rate {
    /// `120ms`, `8.64s`, `6m0s`, `1h0m0s`; never sooner than it is.
    pub fn spelled_reset(&self) -> String {
        let millis = self.reset.as_nanos().div_ceil(1_000_000);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
        let (seconds, part) = (millis / 1000 % 60, millis % 1000);
        // Put together by hand: it is spelled twice for each call.
        let mut text = String::with_capacity(16);
        let mut push = |number: u64, unit: &str| {
            text.push_str(&number.to_string());
            text.push_str(unit);
        };
        if hours > 0 {
            push(hours, "h");
        }
        if hours > 0 || minutes > 0 {
            push(minutes, "m");
        }
        match part {
            0 => push(seconds, "s"),
            _ if millis < 1000 => push(part, "ms"),
            _ => {
                push(
                    seconds,
                    if part < 10 {
                        ".00"
                    } else if part < 100 {
                        ".0"
                    } else {
                        "."
                    },
                );
                let step = [100, 10].into_iter().find(|step| part.is_multiple_of(*step));
                push(part / step.unwrap_or(1), "s");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_spelled_as_openai_spells_it() {
        let spelled = |micros| {
            Rate { limit: 1, remaining: 1, reset: Duration::from_micros(micros) }.spelled_reset()
        };
        assert_eq!(spelled(0), "0s");
        assert_eq!(spelled(119_001), "120ms");
        assert_eq!(spelled(8_640_000), "8.64s");
        assert_eq!([spelled(1_500_000), spelled(1_001_000)], ["1.5s", "1.001s"]);
        assert_eq!(spelled(59_999_500), "1m0s");
        assert_eq!(spelled(432_000_000), "7m12s");
        assert_eq!(spelled(60_040_000), "1m0.04s");
        assert_eq!(spelled(86_400_000_000), "24h0m0s");
    }
}
