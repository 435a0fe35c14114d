//! Tools of OpenAI's that the client itself runs: for everybody else they are functions.
//!
//! A shell on the client's machine and its editor have tools and items of their own in this API.
//! Read, they are functions with the parameters that their pages document, so that any model can
//! call them; written for a client of this API, the calls are items again.

use serde_json::{Value, json};

use crate::canon::Tool;

/// One such tool.
#[derive(Debug)]
pub(super) struct Hosted {
    /// Its name as a tool; the call's item is `<name>_call`, the result's `<name>_call_output`.
    pub(super) name: &'static str,
    pub(super) call: &'static str,
    pub(super) output: &'static str,
    /// The field of the call that holds its arguments.
    pub(super) field: &'static str,
    description: &'static str,
    schema: fn() -> Value,
}

const ALL: &[Hosted] = &[
    Hosted {
        name: "local_shell",
        call: "local_shell_call",
        output: "local_shell_call_output",
        field: "action",
        description: "Runs one command on the user's machine and returns its output.",
        schema: || {
            json!({
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["exec"]},
                    "command": {"type": "array", "items": {"type": "string"}, "description": "The program and its arguments."},
                    "env": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Environment variables."},
                    "timeout_ms": {"type": "integer"},
                    "user": {"type": "string"},
                    "working_directory": {"type": "string"},
                },
                "required": ["type", "command", "env"],
            })
        },
    },
    Hosted {
        name: "shell",
        call: "shell_call",
        output: "shell_call_output",
        field: "action",
        description: "Runs shell commands on the user's machine and returns their output.",
        schema: || {
            json!({
                "type": "object",
                "properties": {
                    "commands": {"type": "array", "items": {"type": "string"}, "description": "Shell commands, run one by one."},
                    "timeout_ms": {"type": "integer"},
                    "max_output_length": {"type": "integer"},
                },
                "required": ["commands"],
            })
        },
    },
    Hosted {
        name: "apply_patch",
        call: "apply_patch_call",
        output: "apply_patch_call_output",
        field: "operation",
        description: "Creates, updates or deletes one file of the user's by a diff.",
        schema: || {
            json!({
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                    "path": {"type": "string"},
                    "diff": {"type": "string", "description": "The V4A diff; not for delete_file."},
                },
                "required": ["type", "path"],
            })
        },
    },
];

// === impl Hosted ===

impl Hosted {
    /// The tool as a function.
    fn function(&self) -> Tool {
        Tool::Function {
            name: self.name.to_owned(),
            description: Some(self.description.to_owned()),
            schema: Some((self.schema)()),
            strict: None,
            cache: None,
        }
    }

    /// The tool that a client offers by `value`, if the client runs it.
    pub(super) fn read(value: &Value) -> Option<Tool> {
        let environment = value["environment"]["type"].as_str().unwrap_or("local");
        let named = ALL.iter().find(|hosted| value["type"] == hosted.name)?;
        (environment == "local").then(|| named.function())
    }

    /// The tool that `tool`, made by `read`, stands for.
    pub(super) fn of(tool: &Tool) -> Option<&'static Self> {
        let Tool::Function { name, description, .. } = tool else { return None };
        let named = ALL.iter().find(|hosted| hosted.name == *name)?;
        (description.as_deref() == Some(named.description)).then_some(named)
    }

    pub(super) fn of_call(item: &str) -> Option<&'static Self> {
        ALL.iter().find(|hosted| hosted.call == item)
    }

    pub(super) fn of_output(item: &str) -> Option<&'static Self> {
        ALL.iter().find(|hosted| hosted.output == item)
    }

    /// The tool as its API spells it.
    pub(super) fn write(&self) -> Value {
        if self.name == "shell" {
            json!({"type": "shell", "environment": {"type": "local"}})
        } else {
            json!({ "type": self.name })
        }
    }
}

/// Between a namespace and a tool's name in it, where an API has no namespaces.
const BETWEEN: &str = "-_-";
/// The longest name of a function that every API takes.
const LONGEST: usize = 64;

/// The one name of a tool in a namespace.
pub(super) fn joined(namespace: &str, name: &str) -> String {
    let whole = format!("{namespace}{BETWEEN}{name}");
    if namespace.is_empty() || whole.len() > LONGEST { name.to_owned() } else { whole }
}

/// The namespace and name that were joined.
pub(super) fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(BETWEEN) {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            (Some(namespace), name)
        }
        _ => (None, name),
    }
}
