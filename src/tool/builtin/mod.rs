//! What the gateway can do itself, without asking anybody: one row each.

mod calculator;
mod convert;
mod datetime;
mod fetch;
mod format;

use serde_json::{Value, json};

use self::fetch::Fetch;
use super::{Answer, Attempt, Failure, FailureKind, Invocation, Runner, Sent};
use crate::config::{self, BuiltinTool};
use crate::tool::kept::Net;

/// A calculation: arguments to result, or why there is none.
type Work = fn(&Value) -> Result<Value, String>;

struct Row {
    name: &'static str,
    /// Said to models where the operator says nothing.
    description: &'static str,
    schema: fn() -> Value,
    does: Does,
}

#[derive(Clone, Copy)]
enum Does {
    Work(Work),
    /// Asks the one for whom it runs.
    Ask,
    /// Tells what an agent has, which only its runs know.
    Search,
    Fetch,
}

const ROWS: &[Row] = &[
    Row {
        name: "calculator",
        description: "Calculates exactly, with decimals of 28 digits: + - * / % ^ !, parentheses, \
                      pi, e, sqrt abs round floor ceil min max sum avg ln log10 exp sin cos tan.",
        schema: calculator::schema,
        does: Does::Work(calculator::run),
    },
    Row {
        name: "datetime",
        description: "Knows the time and calculates with dates: now, add, diff and convert, in any \
                      time zone.",
        schema: datetime::schema,
        does: Does::Work(datetime::run),
    },
    Row {
        name: "convert",
        description: "Converts between units of length, area, volume, mass, speed, time, \
                      temperature, energy, power, pressure, angle and data.",
        schema: convert::schema,
        does: Does::Work(convert::run),
    },
    Row {
        name: "format",
        description: "Turns JSON or CSV into JSON, CSV or a Markdown table.",
        schema: format::schema,
        does: Does::Work(format::run),
    },
    Row {
        name: "fetch",
        description: "Reads a page or a file from the web, by GET. Only some hosts are allowed.",
        schema: fetch::schema,
        does: Does::Fetch,
    },
    Row {
        name: "ask_user",
        description: "Asks the user for something that is missing and cannot be found otherwise. \
                      `schema` says what the answer must look like.",
        schema: question,
        does: Does::Ask,
    },
    Row {
        name: config::SEARCH_TOOLS,
        description: "Tells which tools there are, and how each is called: those that fit a \
                      query, or all of them.",
        schema: search,
        does: Does::Search,
    },
];

fn search() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"query": {"type": "string", "maxLength": 2000}},
    })
}

fn question() -> Value {
    json!({
        "type": "object",
        "required": ["question"],
        "additionalProperties": false,
        "properties": {
            "question": {"type": "string", "minLength": 1, "maxLength": 2000},
            "schema": {
                "type": "object",
                "description": "JSON Schema of the answer; free text without it",
            },
        },
    })
}

/// One of them.
#[derive(Debug)]
pub(super) enum Builtin {
    Pure(Work),
    Question,
    Search,
    Fetch(Box<Fetch>),
}

/// A builtin tool ready to be called, with what models are told of it and asked for.
pub(super) fn make(
    net: &Net,
    tool: &BuiltinTool,
    terms: &config::Tool,
) -> Result<(Builtin, &'static str, Value), String> {
    let row = ROWS.iter().find(|row| row.name == tool.name);
    let row = row.ok_or_else(|| format!("there is no builtin {:?}", tool.name))?;
    let runner = match row.does {
        Does::Work(work) => Builtin::Pure(work),
        Does::Ask => Builtin::Question,
        Does::Search => Builtin::Search,
        Does::Fetch => Builtin::Fetch(Box::new(Fetch::new(net, tool, terms))),
    };
    Ok((runner, row.description, (row.schema)()))
}

impl Runner for Builtin {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        match self {
            Self::Pure(work) => Box::pin(std::future::ready(calculate(*work, call))),
            Self::Question => Box::pin(std::future::ready(ask(call))),
            Self::Search => Box::pin(std::future::ready(Err(homeless()))),
            Self::Fetch(fetch) => Box::pin(fetch.run(call)),
        }
    }
}

fn calculate(work: Work, call: &Invocation) -> Result<Answer, Failure> {
    match work(&call.args) {
        Ok(value) => Ok(Answer::json(value)),
        Err(why) => Err(Failure::new(FailureKind::Soft, why).sent(Sent::Answered)),
    }
}

fn ask(call: &Invocation) -> Result<Answer, Failure> {
    if let Some(answer) = &call.answer {
        return Ok(Answer::json(answer.clone()));
    }
    let message = call.args["question"].as_str().unwrap_or_default().to_owned();
    let free = json!({
        "type": "object",
        "required": ["answer"],
        "properties": {"answer": {"type": "string"}},
    });
    let schema = Box::new(call.args.get("schema").cloned().unwrap_or(free));
    Err(Failure::new(FailureKind::NeedsInput { message: message.clone(), schema }, message))
}

/// Whoever calls it without a run is told.
fn homeless() -> Failure {
    let message = "only the runs of an agent know which tools it has: see `GET /v1/tools?agent=`";
    Failure::new(FailureKind::Soft, message).sent(Sent::Answered)
}

/// The text of an argument that the schema asks for.
fn text<'a>(args: &'a Value, name: &str) -> &'a str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_the_config_names_and_schemas_that_are_some() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        for name in config::BUILTINS {
            assert!(names.contains(name), "{name}");
        }
        assert_eq!(names.len(), config::BUILTINS.len());
        for row in ROWS {
            super::super::schema::Schema::of_arguments(
                &(row.schema)(),
                &config::Schemas::default(),
            )
            .unwrap();
        }
    }
}
