//! The usual `x-ratelimit-…` headers, in OpenAI's spelling.

use std::sync::Arc;
use std::time::Duration;

use super::state::Meter;
use super::{Account, Moment};

/// What a client is told of one limit.
#[derive(Debug, Clone, Copy)]
struct Line {
    limit: u64,
    remaining: u64,
    /// Until all of it is there again.
    reset: Duration,
}

const REQUESTS: [&str; 3] =
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
const TOKENS: [&str; 3] =
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];

/// Limit, rest and reset of the limit on requests that has least left, and of that on tokens;
/// nothing where there is none.
pub fn rate_headers(accounts: &[Arc<Account>], now: Moment) -> Vec<(&'static str, String)> {
    let (mut requests, mut tokens) = (None, None);
    for account in accounts {
        let steady = account.nanos(now);
        let mut state = account.lock();
        state.advance((now.wall, steady));
        requests = tightest(requests, &state.requests, steady);
        tokens = tightest(tokens, &state.token_rates, steady);
    }
    let spelled = |names: [&'static str; 3], line: Line| {
        let values = [line.limit.to_string(), line.remaining.to_string(), spell(line.reset)];
        names.into_iter().zip(values)
    };
    let requests = requests.into_iter().flat_map(|line| spelled(REQUESTS, line));
    requests.chain(tokens.into_iter().flat_map(|line| spelled(TOKENS, line))).collect()
}

fn tightest(so_far: Option<Line>, meters: &[Meter], steady: u64) -> Option<Line> {
    let line = |meter: &Meter| Line {
        limit: meter.pace.amount,
        remaining: meter.remaining(),
        reset: Duration::from_nanos(meter.empty_at().map_or(0, |at| at.saturating_sub(steady))),
    };
    let lines = so_far.into_iter().chain(meters.iter().map(line));
    lines.min_by_key(|line| (line.remaining, std::cmp::Reverse(line.reset)))
}

/// `120ms`, `8.64s`, `6m0s`, `1h0m0s`; never sooner than it is.
fn spell(reset: Duration) -> String {
    let millis = reset.as_nanos().div_ceil(1_000_000);
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (minutes, below) = (millis / 60_000, millis % 60_000);
    let seconds = match below % 1000 {
        0 => format!("{}s", below / 1000),
        part => format!("{}s", format!("{}.{part:03}", below / 1000).trim_end_matches('0')),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_spelled_as_openai_spells_it() {
        let spelled = |micros| spell(Duration::from_micros(micros));
        assert_eq!(spelled(0), "0s");
        assert_eq!(spelled(119_001), "120ms");
        assert_eq!(spelled(8_640_000), "8.64s");
        assert_eq!(spelled(59_999_500), "1m0s");
        assert_eq!(spelled(432_000_000), "7m12s");
        assert_eq!(spelled(86_400_000_000), "24h0m0s");
    }
}
