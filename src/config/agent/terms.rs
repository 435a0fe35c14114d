//! What a run may take: turns and time, money and tokens, room in the window; and what it may do as
//! sure as it says it is.

use std::time::Duration;

use super::narrow;
use crate::config::budget;
use crate::config::limit::{Pace, paces};
use crate::config::reader::Section;
use crate::config::value;
use serde::{Deserialize, Serialize};

pub(in crate::config) const LIMIT_KEYS: &[&str] = &[
    "steps",
    "expected_steps",
    "timeout",
    "step_timeout",
    "wait",
    "tool_concurrency",
    "repairs",
    "rate_limit_tries",
    "loop_warn",
    "loop_stop",
    "final_answer",
];
pub(in crate::config) const BUDGET_KEYS: &[&str] = &[
    "usd",
    "tokens",
    "model_calls",
    "tool_calls",
    "bytes",
    "output_tokens",
    "runs",
    "user_runs",
    "user_usd_per_day",
];
pub(in crate::config) const CONTEXT_KEYS: &[&str] = &[
    "window",
    "reserve_output",
    "tool_result_tokens",
    "retrieval_tokens",
    "compact_at",
    "keep_turns",
    "summariser",
    "overflow",
];
pub(in crate::config) const CONFIDENCE_KEYS: &[&str] =
    &["field", "autonomous", "log", "approve", "missing"];

/// What a run may take of turns and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLimits {
    /// Calls of a model.
    pub steps: u32,
    /// More are worth a look.
    pub expected_steps: u32,
    /// From its beginning to its end, without what it waits for people.
    pub timeout: Duration,
    pub step_timeout: Duration,
    /// How long it waits for people.
    pub wait: Duration,
    pub tool_concurrency: usize,
    /// How often a malformed answer or call is given back to be mended.
    pub repairs: u32,
    /// How often a target that answers 429 is asked, before another one is.
    #[serde(default = "rate_limit_tries")]
    pub rate_limit_tries: u32,
    /// The same call so often is remarked on, and so often ends the run.
    pub loop_warn: u32,
    pub loop_stop: u32,
    /// The last step has no tools, so that there is an answer.
    pub final_answer: bool,
}

/// What a run and all that it starts may use together; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentBudget {
    /// In nano-dollars.
    pub usd: Option<u64>,
    pub tokens: Option<u64>,
    pub model_calls: u32,
    pub tool_calls: u32,
    /// Of results of tools.
    pub bytes: u64,
    /// Tokens of one answer of a model.
    pub output_tokens: u64,
    /// How often it may be begun, by all and by each user.
    pub runs: Vec<Pace>,
    pub user_runs: Vec<Pace>,
    /// What each user may spend with it in a day, in nano-dollars.
    pub user_usd_per_day: Option<u64>,
}

/// How a conversation is made to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTerms {
    /// Tokens, where it is less than what the model can read.
    pub window: Option<u64>,
    pub reserve_output: u64,
    /// Of one result; the rest is kept and not shown.
    pub tool_result_tokens: u64,
    /// Of texts that were found with a score each, the best ones.
    #[serde(default = "retrieval_tokens")]
    pub retrieval_tokens: u64,
    /// At what share of the window older turns are made shorter, in thousandths.
    pub compact_at_permille: u32,
    /// Turns that stay as they are.
    pub keep_turns: u32,
    /// Who makes summaries: a route; without one, older results and then turns are left out.
    pub summariser: Option<String>,
    /// Who is asked where nothing makes it fit: a route that can read more.
    pub overflow: Option<String>,
}

/// What an agent may do as sure as it says it is, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confidence {
    /// Of calls' arguments and of answers.
    pub field: String,
    /// Above it, it acts.
    pub autonomous: u32,
    /// From here on it acts, and somebody looks at it later.
    pub log: u32,
    /// From here on somebody must let it. Below, a person takes over.
    pub approve: u32,
    /// What holds where it says nothing.
    pub missing: Band,
}

/// What an agent may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Band {
    Escalate,
    Approve,
    Log,
    Autonomous,
}

// === impl AgentLimits ===

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            steps: 10,
            expected_steps: 6,
            timeout: Duration::from_mins(2),
            step_timeout: Duration::from_mins(1),
            wait: Duration::from_hours(24),
            tool_concurrency: 8,
            repairs: 2,
            rate_limit_tries: rate_limit_tries(),
            loop_warn: 3,
            loop_stop: 5,
            final_answer: true,
        }
    }
}

impl AgentLimits {
    pub(super) fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("limits").and_then(|field| field.section(LIMIT_KEYS)) else {
            return self.clone();
        };
        let number = |key, most, base| {
            section.read(key, |it| value::whole(it, 1..=most)).map_or(base, narrow)
        };
        let time = |key, base| section.read(key, value::deadline).unwrap_or(base);
        Self {
            steps: number("steps", 1000, self.steps),
            expected_steps: number("expected_steps", 1000, self.expected_steps),
            timeout: time("timeout", self.timeout),
            step_timeout: time("step_timeout", self.step_timeout),
            wait: time("wait", self.wait),
            tool_concurrency: section
                .read("tool_concurrency", |it| value::count(it, 1))
                .unwrap_or(self.tool_concurrency),
            repairs: section
                .read("repairs", |it| value::whole(it, 0..=10))
                .map_or(self.repairs, narrow),
            rate_limit_tries: number("rate_limit_tries", 10, self.rate_limit_tries),
            loop_warn: number("loop_warn", 100, self.loop_warn),
            loop_stop: number("loop_stop", 100, self.loop_stop),
            final_answer: section.read("final_answer", value::flag).unwrap_or(self.final_answer),
        }
    }
}

// === impl AgentBudget ===

impl Default for AgentBudget {
    fn default() -> Self {
        Self {
            usd: None,
            tokens: None,
            model_calls: 20,
            tool_calls: 40,
            bytes: 16 << 20,
            output_tokens: 4096,
            runs: Vec::new(),
            user_runs: Vec::new(),
            user_usd_per_day: None,
        }
    }
}

impl AgentBudget {
    pub(super) fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("budget").and_then(|field| field.section(BUDGET_KEYS)) else {
            return self.clone();
        };
        let number = |key| section.read(key, |it| value::whole(it, 1..=1 << 40));
        let rates = |key, base: &Vec<Pace>| {
            section.get(key).map_or_else(|| base.clone(), |field| paces(&field))
        };
        Self {
            usd: section.read("usd", budget::money).or(self.usd),
            tokens: number("tokens").or(self.tokens),
            model_calls: number("model_calls").map_or(self.model_calls, narrow),
            tool_calls: number("tool_calls").map_or(self.tool_calls, narrow),
            bytes: section.read("bytes", value::size).map_or(self.bytes, |bytes| bytes as u64),
            output_tokens: number("output_tokens").unwrap_or(self.output_tokens),
            runs: rates("runs", &self.runs),
            user_runs: rates("user_runs", &self.user_runs),
            user_usd_per_day: section
                .read("user_usd_per_day", budget::money)
                .or(self.user_usd_per_day),
        }
    }
}

// === impl ContextTerms ===

impl Default for ContextTerms {
    fn default() -> Self {
        Self {
            window: None,
            reserve_output: 4000,
            tool_result_tokens: 6000,
            retrieval_tokens: retrieval_tokens(),
            compact_at_permille: 750,
            keep_turns: 6,
            summariser: None,
            overflow: None,
        }
    }
}

impl ContextTerms {
    pub(super) fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("context").and_then(|field| field.section(CONTEXT_KEYS))
        else {
            return self.clone();
        };
        let number = |key| section.read(key, |it| value::whole(it, 1..=1 << 32));
        Self {
            window: number("window").or(self.window),
            reserve_output: number("reserve_output").unwrap_or(self.reserve_output),
            tool_result_tokens: number("tool_result_tokens").unwrap_or(self.tool_result_tokens),
            retrieval_tokens: number("retrieval_tokens").unwrap_or(self.retrieval_tokens),
            compact_at_permille: section
                .read("compact_at", value::permille)
                .unwrap_or(self.compact_at_permille),
            keep_turns: number("keep_turns").map_or(self.keep_turns, narrow),
            summariser: section.read("summariser", value::text).or_else(|| self.summariser.clone()),
            overflow: section.read("overflow", value::text).or_else(|| self.overflow.clone()),
        }
    }
}

/// What definitions have that were stored before there was such a limit.
fn rate_limit_tries() -> u32 {
    2
}

/// The same.
fn retrieval_tokens() -> u64 {
    4000
}

// === impl Confidence ===

impl Confidence {
    pub(super) fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("confidence")?.section(CONFIDENCE_KEYS)?;
        let bands = [
            ("autonomous", Band::Autonomous),
            ("log", Band::Log),
            ("approve", Band::Approve),
            ("escalate", Band::Escalate),
        ];
        let share = |key, usual| section.read(key, value::permille).unwrap_or(usual);
        let confidence = Self {
            field: section.read("field", value::text).unwrap_or_else(|| "confidence".to_owned()),
            autonomous: share("autonomous", 900),
            log: share("log", 700),
            approve: share("approve", 500),
            missing: section
                .read("missing", |it| value::one_of(it, &bands))
                .unwrap_or(Band::Approve),
        };
        if confidence.autonomous < confidence.log || confidence.log < confidence.approve {
            let message = "must fall from `autonomous` over `log` to `approve`";
            section.report.problem(&section.path, message);
        }
        Some(confidence)
    }

    /// What it may do that is so sure, in thousandths.
    pub fn band(&self, sure: Option<u32>) -> Band {
        match sure {
            None => self.missing,
            Some(sure) if sure > self.autonomous => Band::Autonomous,
            Some(sure) if sure >= self.log => Band::Log,
            Some(sure) if sure >= self.approve => Band::Approve,
            Some(_) => Band::Escalate,
        }
    }
}
