//! The one internal language: what every room may say of a call. Pure data, no I/O.

mod chat;
mod dialect;
mod embed;
mod event;
mod id;
mod model;
mod owner;
mod record;
mod relay;
mod run;
mod task;
mod trace;
mod usage;

pub use chat::{
    CacheMark, ChatRequest, ChatResponse, Choice, Citation, Content, Effort, Extras, Finish,
    FinishReason, Foreign, Format, Media, MediaKind, Message, Opaque, Part, Reasoning, Role,
    Sampling, Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult,
};
pub use dialect::Dialect;
pub use embed::{EmbedInput, EmbedRequest, EmbedResponse};
pub use event::{Delta, Event, Opening, Start, StreamFailure};
pub use id::CallId;
pub use model::{
    AmountError, Feature, FeatureSet, Features, Model, Money, Price, Rate, Rates, Tier,
};
pub use owner::Owner;
pub use record::{
    Attempt, CacheUse, CallRecord, Consultation, Exchange, GuardNote, Leg, Outcome, Purpose,
    RunPart, Shown, Skipped, Surface, UsageSource,
};
pub use relay::Relay;
pub use run::{Effect, RunId, RunState, StopReason};
pub use task::Task;
pub use trace::{Passed, Trace, baggage_of, span_below, span_of_attempt, span_of_guard};
pub use usage::Usage;
