//! How each API spells the making of vectors; clients speak OpenAI's or Google's.
//!
//! The answers are not streamed and hold no choices, so there is less to a side than in chat: a
//! question is written as one body or, where the target takes fewer texts at once, as several.

mod bedrock;
mod cohere;
mod followers;
mod gemini;
mod google;
mod openai;

pub use openai::read_request;

use std::borrow::Cow;

use crate::canon::{EmbedInput, EmbedRequest, EmbedResponse, Surface, Usage};
use crate::dialect::lost::Dropped;
use crate::dialect::{Inexpressible, Misread, Written};

/// The side that providers see.
pub trait EmbedUpstream: Send + Sync {
    /// The bodies to send, in order; `request.model` is the target's own name. The texts keep
    /// their order from body to body, so the answers' vectors need only be joined.
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible>;

    /// Joins the answers to what `write_requests` gave, in the same order.
    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread>;
}

/// How a client has asked, and wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    OpenAi,
    /// `embedContent`: one text.
    Google,
    /// `batchEmbedContents`.
    GoogleBatch,
}

/// Reads a client's question by the door that it comes in.
pub fn read(surface: Surface, body: &[u8]) -> Result<(EmbedRequest, Form), Misread> {
    match surface {
        Surface::GoogleEmbeddings => google::read(body),
        _ => read_request(body).map(|request| (request, Form::OpenAi)),
    }
}

/// Writes the answer for a client.
pub fn write_response(response: &EmbedResponse, request: &EmbedRequest, form: Form) -> Vec<u8> {
    match form {
        Form::OpenAi => openai::write_response(response, request),
        Form::Google | Form::GoogleBatch => google::write(response, form),
    }
}

/// A spelling of embedding calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// OpenAI and all who followed: any number of texts in one body.
    OpenAi,
    /// Mistral, which follows OpenAI but has a name of its own for the dimensions.
    Mistral,
    /// Perplexity, which follows OpenAI but for what a vector is: up to 512 texts in one body.
    Perplexity,
    /// Cohere, version 2: up to 96 texts in one body.
    Cohere,
    /// Amazon's Titan on Bedrock: one text a body.
    Titan,
    /// Amazon's Nova on Bedrock: one text a body.
    Nova,
    /// Cohere on Bedrock: up to 96 texts in one body.
    BedrockCohere,
    /// Gemini's `batchEmbedContents`.
    Gemini,
    /// Vertex AI's `predict`.
    VertexPredict,
}

/// The side of a spelling that providers see.
pub fn upstream(upstream: Upstream) -> &'static dyn EmbedUpstream {
    match upstream {
        Upstream::OpenAi => &openai::OpenAi,
        Upstream::Mistral => &followers::Mistral,
        Upstream::Perplexity => &followers::Perplexity,
        Upstream::Cohere => &cohere::Cohere { on_bedrock: false },
        Upstream::BedrockCohere => &cohere::Cohere { on_bedrock: true },
        Upstream::Titan => &bedrock::Titan,
        Upstream::Nova => &bedrock::Nova,
        Upstream::Gemini => &gemini::Gemini,
        Upstream::VertexPredict => &gemini::VertexPredict,
    }
}

/// The texts of a question for a target that takes nothing else.
pub fn texts(request: &EmbedRequest) -> Result<Vec<&str>, Inexpressible> {
    let texts = request.inputs.iter().map(|input| match input {
        EmbedInput::Text(text) => Ok(text.as_str()),
        EmbedInput::Tokens(_) => Err(Inexpressible(Cow::Borrowed(
            "`input` holds token numbers, and this model takes only text.",
        ))),
    });
    texts.collect()
}

/// Names the fields of a question that a target cannot take, `taken` aside: every extra, and
/// `user`.
pub fn dropped(request: &EmbedRequest, taken: &[&str]) -> Vec<Cow<'static, str>> {
    let mut dropped = Dropped::default();
    dropped.add_if(request.user.is_some(), "user");
    dropped.extend(request.extras.keys().filter(|name| !taken.contains(&name.as_str())).cloned());
    dropped.into_names()
}

/// Adds up what several answers to one question cost.
fn add_usage(whole: &mut Option<Usage>, input: Option<u64>) {
    if let Some(input) = input {
        let usage = whole.get_or_insert_default();
        usage.input = usage.input.saturating_add(input);
    }
}

#[cfg(test)]
mod tests;
