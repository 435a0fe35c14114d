//! Ids that sort by time.

use std::fmt;

use uuid::Uuid;

/// The id of one call, sent as `x-request-id`: a UUID version 7 (RFC 9562), so ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(Uuid);

impl CallId {
    #[expect(clippy::new_without_default, reason = "each id is another one")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Its 32 hexadecimal digits.
    pub fn simple(self) -> String {
        self.0.simple().to_string()
    }

    /// 62 of its bits that are random.
    pub fn random(self) -> u64 {
        self.0.as_u64_pair().1 & (u64::MAX >> 2)
    }

    /// All of its bits.
    pub fn bits(self) -> u128 {
        self.0.as_u128()
    }

    /// The half that is random, never 0: the id of the call's span in a trace.
    pub fn span(self) -> u64 {
        self.0.as_u64_pair().1
    }

    /// The 36 characters of the id, without an allocation.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}
