//! The official SDKs, unmodified, each with every scripted vendor: straight, and through the
//! gateway.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::KEY;
use crate::support::{Fleet, Vendor};

/// What is true of answers that come from a vendor.
struct Column {
    name: &'static str,
    vendor: Vendor,
    model: &'static str,
    /// Tokens of a question, all classes, of which so many were written to a cache.
    input: u64,
    written: u64,
    /// Tokens of thought where they are told apart.
    reasoning: u64,
    /// Thoughts can be read.
    thoughts: bool,
    images: bool,
    /// Answers follow any schema; otherwise they are only JSON.
    schema: bool,
}

const COLUMN: Column = Column {
    name: "",
    vendor: Vendor::OpenAi,
    model: "gpt-5-mini",
    input: 150,
    written: 0,
    reasoning: 15,
    thoughts: true,
    images: true,
    schema: true,
};

const COLUMNS: [Column; 11] = [
    Column { name: "openai", thoughts: false, ..COLUMN },
    Column { name: "anthropic", ..CLAUDE },
    Column { name: "gemini", vendor: Vendor::Gemini, model: "gemini-3-pro-preview", ..COLUMN },
    Column { name: "mistral", vendor: Vendor::Mistral, model: "magistral-medium-latest", ..COLUMN },
    Column { name: "vertex-gemini", vendor: Vendor::Vertex, model: "gemini-2.5-pro", ..COLUMN },
    Column { name: "deepseek", ..DEEPSEEK },
    Column { name: "vertex-claude", vendor: Vendor::Vertex, ..CLAUDE },
    Column {
        name: "openrouter",
        vendor: Vendor::OpenRouter,
        model: "anthropic/claude-sonnet-4.5",
        ..COLUMN
    },
    Column {
        name: "bedrock",
        vendor: Vendor::Bedrock,
        model: "us.anthropic.claude-sonnet-4-6",
        ..CLAUDE
    },
    Column { name: "azure", vendor: Vendor::Azure, thoughts: false, ..COLUMN },
    Column {
        name: "cohere",
        vendor: Vendor::Cohere,
        model: "command-a-reasoning-08-2025",
        reasoning: 0,
        ..COLUMN
    },
];

const CLAUDE: Column = Column {
    vendor: Vendor::Anthropic,
    model: "claude-sonnet-4-6",
    input: 157,
    written: 7,
    reasoning: 0,
    ..COLUMN
};

const DEEPSEEK: Column = Column {
    vendor: Vendor::DeepSeek,
    model: "deepseek-chat",
    images: false,
    schema: false,
    ..COLUMN
};

/// Each SDK's surface, with the columns of the vendors that it also talks to without a gateway.
const SURFACES: [(&str, &[(&str, &str)]); 7] = [
    ("openai-python chat", &[("direct", "openai")]),
    ("openai-node chat", &[("direct", "openai")]),
    ("openai-python responses", &[("direct", "openai")]),
    ("openai-node responses", &[("direct", "openai")]),
    ("anthropic-python messages", &[("direct", "anthropic"), ("direct-vertex", "vertex-claude")]),
    ("anthropic-node messages", &[("direct", "anthropic")]),
    ("genai-python generate", &[("direct", "gemini"), ("direct-vertex", "vertex-gemini")]),
];

fn column(name: &str) -> &'static Column {
    COLUMNS.iter().find(|column| column.name == name).unwrap()
}

/// A column as the drivers want it; `next` is where a conversation goes on.
fn cell(name: &str, column: &Column, url: &str, models: [&str; 2]) -> Value {
    let [model, next] = models;
    json!({
        "name": name, "url": url, "key": KEY, "model": model, "next": next,
        "input": column.input, "written": column.written, "reasoning": column.reasoning,
        "thoughts": column.thoughts, "images": column.images, "schema": column.schema,
    })
}

/// The column as this surface finds it: vendors with several APIs say more in one than in another.
fn asked_by(surface: &str, column: &Column) -> Column {
    let responses = surface.ends_with("responses");
    match column.vendor {
        Vendor::OpenAi if responses => Column { thoughts: true, ..*column },
        Vendor::OpenRouter if surface.ends_with("messages") => {
            Column { name: column.name, vendor: column.vendor, model: column.model, ..CLAUDE }
        }
        _ => Column { ..*column },
    }
}

fn plan(fleet: &Fleet, gateway: &str) -> Value {
    let plan = SURFACES.iter().map(|(surface, direct)| {
        let straight = direct.iter().map(|(name, known)| {
            let column = asked_by(surface, column(known));
            let url = fleet.url(column.vendor);
            cell(name, &column, &url, [column.model, column.model])
        });
        let through = COLUMNS.iter().enumerate().map(|(at, column)| {
            let next = &COLUMNS[(at + 1) % COLUMNS.len()];
            let model = |column: &Column| format!("{}/{}", column.vendor.name(), column.model);
            let models = [model(column), model(next)];
            let column = asked_by(surface, column);
            cell(column.name, &column, gateway, [&models[0], &models[1]])
        });
        ((*surface).to_owned(), straight.chain(through).collect())
    });
    Value::Object(plan.collect())
}

#[tokio::test]
async fn every_sdk_works_with_every_provider() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDKs were not asked to run");
        return;
    }
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("").await;
    let plan = plan(&fleet, &format!("http://{}", gateway.address));
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run.sh"));
    command.arg("--matrix").env("SWITCHPOINT_MATRIX", plan.to_string());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}", said.concat());
    assert!(output.status.success(), "an SDK broke a promise");
}
