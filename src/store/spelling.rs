//! How a row of the journal is spelled: in few words, since each call writes one.

/// Nanoseconds since 1970.
pub(super) mod time {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer};

    pub(in crate::store) fn nanos(time: SystemTime) -> u64 {
        super::duration::nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let since = Duration::from_nanos(u64::deserialize(deserializer)?);
        Ok(SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

/// Nanoseconds.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(in crate::store) fn nanos(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Ok(Duration::from_nanos(u64::deserialize(deserializer)?))
    }
}

/// The same, or nothing.
pub(super) mod maybe {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
    }
}

/// The numbers of `Usage`, in their order.
pub(super) mod usage {
    use serde::{Deserialize, Deserializer};

    use crate::canon::Usage;

    pub(in crate::store) fn numbers(usage: &Usage) -> [u64; 8] {
        let Usage { input, cache_read, cache_write, cache_write_long, output, .. } = *usage;
        let Usage { reasoning, audio_input, audio_output, .. } = *usage;
        [
            input,
            cache_read,
            cache_write,
            cache_write_long,
            output,
            reasoning,
            audio_input,
            audio_output,
        ]
    }

    pub(in crate::store) fn of(numbers: [u64; 8]) -> Usage {
        let [input, cache_read, cache_write, cache_write_long, output, ..] = numbers;
        let [.., reasoning, audio_input, audio_output] = numbers;
        Usage {
            input,
            cache_read,
            cache_write,
            cache_write_long,
            output,
            reasoning,
            audio_input,
            audio_output,
        }
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Usage, D::Error> {
        Ok(of(<[u64; 8]>::deserialize(deserializer)?))
    }
}

/// Each attempt as the list of its fields.
pub(super) mod attempts {
    use std::sync::Arc;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{duration, usage};
    use crate::canon::{Attempt, Leg, Money, Outcome};

    type Fields<S> = (S, S, Outcome, u16, u64, Option<[u64; 8]>, Option<Money>);

    /// Some attempts, spelled so.
    pub(in crate::store) struct Spelled<'a>(pub(in crate::store) &'a [Attempt]);

    impl Serialize for Spelled<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.iter().map(|attempt| -> Fields<&str> {
                let Attempt { provider, model, outcome, status, elapsed, usage, cost, leg: _ } =
                    attempt;
                let used = usage.as_ref().map(usage::numbers);
                (provider, model, *outcome, *status, duration::nanos(*elapsed), used, *cost)
            }))
        }
    }

    /// What cannot be read is not told of.
    pub(in crate::store) fn read(text: &str) -> Vec<Attempt> {
        deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap_or_default()
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Attempt>, D::Error> {
        let rows = Vec::<Fields<Arc<str>>>::deserialize(deserializer)?;
        let attempt = |(provider, model, outcome, status, nanos, used, cost): Fields<Arc<str>>| {
            let (elapsed, usage) = (Duration::from_nanos(nanos), used.map(usage::of));
            Attempt { provider, model, outcome, status, elapsed, usage, cost, leg: Leg::default() }
        };
        Ok(rows.into_iter().map(attempt).collect())
    }
}
