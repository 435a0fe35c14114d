//! The rows of the ledger as plain values: what a call used, what it cost and who pays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};

use super::spelling;
use crate::canon::{Attempt, CacheUse, CallRecord, Money, Outcome, Purpose, Usage, UsageSource};

/// Bytes of tags in one row: clients write them, and a row is to stay below a kibibyte.
const TAGS: usize = 256;

/// A word of ours that the ledger keeps and does not decide by.
pub type Name = Cow<'static, str>;

/// One call. Read back from the database, times are whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CallRow {
    /// The call's x-request-id. A second row of the same id is no row.
    pub id: String,
    #[serde(deserialize_with = "spelling::time::deserialize")]
    pub at: SystemTime,
    pub surface: Name,
    pub stream: bool,
    #[serde(default)]
    pub key: Option<Arc<str>>,
    #[serde(default)]
    pub team: Option<Arc<str>>,
    #[serde(default)]
    pub user: Option<Arc<str>>,
    #[serde(default)]
    pub org: Option<Arc<str>>,
    #[serde(default)]
    pub route: Option<Arc<str>>,
    #[serde(default)]
    pub agent: Option<Arc<str>>,
    #[serde(default)]
    pub task: Option<Name>,
    #[serde(default)]
    pub provider: Option<Arc<str>>,
    #[serde(default)]
    pub model: Option<Arc<str>>,
    pub outcome: Outcome,
    pub status: u16,
    /// Of all attempts together.
    #[serde(deserialize_with = "spelling::usage::deserialize")]
    pub usage: Usage,
    pub usage_source: UsageSource,
    /// `None` is not free: nobody knows.
    #[serde(default)]
    pub cost: Option<Money>,
    /// The tokens as budgets count them.
    pub counted: u64,
    /// When budgets counted it.
    #[serde(deserialize_with = "spelling::time::deserialize")]
    pub settled_at: SystemTime,
    #[serde(deserialize_with = "spelling::duration::deserialize")]
    pub duration: Duration,
    #[serde(default, deserialize_with = "spelling::maybe::deserialize")]
    pub first_token: Option<Duration>,
    pub generation: u64,
    pub cache: Name,
    pub purpose: Name,
    #[serde(default)]
    pub tags: BTreeMap<Box<str>, Box<str>>,
    #[serde(deserialize_with = "spelling::attempts::deserialize")]
    pub attempts: Vec<Attempt>,
}

/// One line of a report: the sums of all calls that share these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// In the order asked for. Calls without a value share one line.
    pub group: Vec<Option<String>>,
    pub calls: u64,
    /// Calls whose tokens the gateway counted itself.
    pub estimated: u64,
    /// Calls whose cost nobody knows; they are not in `cost`.
    pub unpriced: u64,
    pub usage: Usage,
    pub cost: Money,
}

/// What calls can be grouped and chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    Key,
    Team,
    User,
    Org,
    Route,
    Agent,
    Task,
    Provider,
    Model,
    Surface,
    Outcome,
    Purpose,
    /// Of UTC, as 2026-11-21.
    Day,
    /// As name=value. A call with several counts for each of them.
    Tag,
    /// Of calls that runs make: the run, and the user whom its client named.
    Run,
    EndUser,
}

/// Which rows the asker may know of. The others are as if they were not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The operator's.
    All,
    Key(Arc<str>),
    User(Arc<str>),
    Team(Arc<str>),
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub from: Option<SystemTime>,
    /// Not included.
    pub to: Option<SystemTime>,
    pub equal: Vec<(Column, String)>,
}

// === impl CallRow ===

impl Serialize for CallRow {
    /// As the list of its fields, which is half as long as with their names and soon read. What is
    /// added goes to the end of the list, as it goes to the end of the struct, and has a default.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_tuple(27)?;
        list.serialize_element(&self.id)?;
        list.serialize_element(&spelling::time::nanos(self.at))?;
        list.serialize_element(&self.surface)?;
        list.serialize_element(&self.stream)?;
        for name in [&self.key, &self.team, &self.user, &self.org, &self.route, &self.agent] {
            list.serialize_element(name)?;
        }
        list.serialize_element(&self.task)?;
        list.serialize_element(&self.provider)?;
        list.serialize_element(&self.model)?;
        list.serialize_element(&self.outcome)?;
        list.serialize_element(&self.status)?;
        list.serialize_element(&spelling::usage::numbers(&self.usage))?;
        list.serialize_element(&self.usage_source)?;
        list.serialize_element(&self.cost)?;
        list.serialize_element(&self.counted)?;
        list.serialize_element(&spelling::time::nanos(self.settled_at))?;
        list.serialize_element(&spelling::duration::nanos(self.duration))?;
        list.serialize_element(&self.first_token.map(spelling::duration::nanos))?;
        list.serialize_element(&self.generation)?;
        list.serialize_element(&self.cache)?;
        list.serialize_element(&self.purpose)?;
        list.serialize_element(&self.tags)?;
        list.serialize_element(&spelling::attempts::Spelled(&self.attempts))?;
        list.end()
    }
}

impl CallRow {
    /// Whether those in whose name it was made pay for it. What the gateway asks to compare targets
    /// it asks on its own account.
    pub(super) fn is_charged(&self) -> bool {
        self.purpose != Purpose::Shadow.name()
    }

    /// Its attempts, as they stand in its row.
    pub(super) fn tried(&self) -> Cow<'static, str> {
        if self.attempts.is_empty() {
            return Cow::Borrowed("[]");
        }
        serde_json::to_string(&spelling::attempts::Spelled(&self.attempts))
            .unwrap_or_default()
            .into()
    }

    /// The tags as a JSON object; those beyond the bound are left out, and those with a zero, which
    /// Postgres' JSON cannot hold.
    pub(super) fn tags(&self) -> Cow<'static, str> {
        if self.tags.is_empty() {
            return Cow::Borrowed("{}");
        }
        let mut room = TAGS;
        let kept: BTreeMap<_, _> = self
            .tags
            .iter()
            .filter(|(name, value)| !name.contains('\0') && !value.contains('\0'))
            .take_while(|(name, value)| {
                // With two pairs of quotes, a colon and a comma.
                let left = room.checked_sub(name.len() + value.len() + 6);
                room = left.unwrap_or_default();
                left.is_some()
            })
            .collect();
        serde_json::to_string(&kept).map_or(Cow::Borrowed("{}"), Cow::Owned)
    }
}

impl From<&CallRecord> for CallRow {
    /// What a record does not know is left empty.
    fn from(record: &CallRecord) -> Self {
        let (served, mut id) = (record.served_by(), [0; 36]);
        Self {
            id: record.id.encode(&mut id).to_owned(),
            at: record.at,
            surface: record.surface.name().into(),
            stream: record.stream,
            key: record.key.clone(),
            team: record.team.clone(),
            user: record.user.clone(),
            org: record.org.clone(),
            route: record.route.clone(),
            agent: record.agent(),
            task: record.task.map(|task| task.name().into()),
            provider: served.map(|attempt| Arc::clone(&attempt.provider)),
            model: served.map(|attempt| Arc::clone(&attempt.model)),
            outcome: record.outcome,
            status: record.status,
            usage: record.usage_of_all(),
            usage_source: record.usage_source,
            cost: record.cost,
            counted: record.counted,
            settled_at: record.settled_at,
            duration: record.duration,
            first_token: record.first_token,
            generation: record.generation,
            cache: record.cache.map_or("off", CacheUse::name).into(),
            purpose: record.purpose.name().into(),
            tags: record.tags.clone(),
            attempts: record.attempts.clone(),
        }
    }
}

// === impl Column ===

impl Column {
    /// What operators can group by and choose.
    pub const ALL: [Self; 14] = [
        Self::Key,
        Self::Team,
        Self::User,
        Self::Org,
        Self::Route,
        Self::Agent,
        Self::Task,
        Self::Provider,
        Self::Model,
        Self::Surface,
        Self::Outcome,
        Self::Purpose,
        Self::Day,
        Self::Tag,
    ];

    /// Its name in the database and in `group_by`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::User => "user",
            Self::Org => "org",
            Self::Route => "route",
            Self::Agent => "agent",
            Self::Task => "task",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Surface => "surface",
            Self::Outcome => "outcome",
            Self::Purpose => "purpose",
            Self::Day => "day",
            Self::Tag => "tag",
            Self::Run => "run",
            Self::EndUser => "end_user",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}
