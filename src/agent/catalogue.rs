//! What an agent has for tools, told to its own model when that asks: the tool `search_tools`.

use std::cmp::Reverse;

use bytes::Bytes;
use serde_json::{Value, json};

use super::actor::Actor;
use super::definition::ToolDefinition;
use crate::canon::Part;
use crate::config::{SEARCH_TOOLS, ToolKind};
use crate::tool::{Output, Tool};

/// Of those that fit a question, so many are told.
const MOST: usize = 10;

impl Actor {
    /// The tools that its model may call now, by what is asked.
    pub(super) async fn catalogue(&self, args: &Value) -> Output {
        let run = self.journal.run().await;
        let member = run.member();
        let withheld = member.map(|member| self.withheld(member)).unwrap_or_default();
        let tools = member.into_iter().flat_map(|member| &member.tools);
        let tools = tools.filter(|tool| !withheld.contains(&&*tool.alias));
        let value = found(tools, args["query"].as_str().unwrap_or_default());
        drop(run);
        let text = value.to_string();
        Output {
            parts: vec![Part::text(text.clone())],
            value: Some(value),
            raw: Bytes::from(text),
            truncated: false,
            cached: false,
            attempts: 1,
            retried: Vec::new(),
            wire: None,
        }
    }
}

/// Whether a tool tells of the others.
pub(super) fn is_catalogue(tool: &Tool) -> bool {
    matches!(&tool.terms.kind, ToolKind::Builtin(it) if it.name == SEARCH_TOOLS)
}

/// All of them where nothing is asked for; else those that have a word of it, the best first.
fn found<'a>(tools: impl Iterator<Item = &'a ToolDefinition>, query: &str) -> Value {
    let query = query.to_lowercase();
    let words: Vec<&str> =
        query.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty()).collect();
    let rank = |tool: &ToolDefinition| {
        let has = |text: &str| {
            let text = text.to_lowercase();
            words.iter().filter(|word| text.contains(**word)).count()
        };
        // A name says more than a sentence does.
        2 * has(&tool.alias) + has(&tool.description)
    };
    let mut ranked: Vec<(usize, &ToolDefinition)> = tools.map(|tool| (rank(tool), tool)).collect();
    if !words.is_empty() {
        ranked.retain(|(rank, _)| *rank > 0);
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        ranked.truncate(MOST);
    }
    let shown = ranked.into_iter().map(|(_, tool)| {
        json!({
            "name": tool.alias,
            "description": tool.description,
            "effect": tool.effect.name(),
            "input_schema": tool.input,
        })
    });
    json!({"tools": shown.collect::<Vec<_>>()})
}
