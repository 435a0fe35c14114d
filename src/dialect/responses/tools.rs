//! What a model may call, and what it must.

use serde_json::{Map, Value, json};

use super::hosted::{Hosted, joined, split};
use super::item::string;
use crate::canon::{Dialect, Foreign, Tool, ToolChoice};
use crate::dialect::Misread;

/// Reads `tools`. Tools in a namespace become functions whose names begin with it.
pub(super) fn read(value: &Value) -> Result<Vec<Tool>, Misread> {
    let mut tools = Vec::new();
    let list = match value {
        Value::Null => return Ok(tools),
        Value::Array(list) => list,
        _ => return Err(Misread::new("`tools` must be a list.")),
    };
    for (place, tool) in list.iter().enumerate() {
        let bad = || Misread::new(format!("`tools[{place}]` needs a `type` and a `name`."));
        if tool["type"] == "namespace" {
            let namespace = string(tool, "name").ok_or_else(bad)?;
            for inner in tool["tools"].as_array().into_iter().flatten() {
                tools.push(read_one(inner, namespace).ok_or_else(bad)?);
            }
        } else {
            tools.push(read_one(tool, "").ok_or_else(bad)?);
        }
    }
    Ok(tools)
}

/// Adds tools; what is called the same takes the place of the one before.
pub(super) fn add(tools: &mut Vec<Tool>, more: Vec<Tool>) {
    let name = |tool: &Tool| match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name.clone()),
        Tool::Hosted(_) => None,
    };
    for tool in more {
        let own = name(&tool);
        tools.retain(|known| own.is_none() || name(known) != own);
        tools.push(tool);
    }
}

fn read_one(tool: &Value, namespace: &str) -> Option<Tool> {
    let description = string(tool, "description").map(str::to_owned);
    let name = || string(tool, "name").map(|name| joined(namespace, name));
    Some(match string(tool, "type")? {
        "function" => Tool::Function {
            name: name()?,
            description,
            schema: tool.get("parameters").filter(|schema| schema.is_object()).cloned(),
            strict: tool["strict"].as_bool(),
            cache: None,
        },
        "custom" => Tool::Custom {
            name: name()?,
            description,
            format: tool.get("format").filter(|format| format.is_object()).cloned(),
        },
        _ => Hosted::read(tool).unwrap_or_else(|| {
            Tool::Hosted(Foreign { dialect: Dialect::Responses, value: tool.clone() })
        }),
    })
}

/// How tools are written: by default as OpenAI's clients do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spelling {
    /// Says `strict: false` where nothing is said of it: this API would otherwise tighten a schema
    /// that its client wrote for another.
    pub(super) lenient: bool,
    /// All are functions without a namespace: the server knows nothing else that is run by clients.
    pub(super) flat: bool,
}

// === impl Spelling ===

impl Spelling {
    /// The namespace that the tool is in, and its name there.
    pub(super) fn split(self, name: &str) -> (Option<&str>, &str) {
        if self.flat { (None, name) } else { split(name) }
    }

    fn hosted(self, tool: &Tool) -> Option<&'static Hosted> {
        Hosted::of(tool).filter(|_| !self.flat)
    }
}

/// Writes `tools`.
pub(super) fn write(tools: &[Tool], spelling: Spelling) -> Vec<Value> {
    let mut written: Vec<Value> = Vec::new();
    for tool in tools {
        let Some((namespace, value)) = write_one(tool, spelling) else { continue };
        let Some(namespace) = namespace else {
            written.push(value);
            continue;
        };
        let open = written
            .last_mut()
            .filter(|last| last["type"] == "namespace" && last["name"] == namespace);
        match open.and_then(|last| last["tools"].as_array_mut()) {
            Some(inner) => inner.push(value),
            None => written.push(json!({
                "type": "namespace",
                "name": namespace,
                "description": namespace,
                "tools": [value],
            })),
        }
    }
    written
}

/// A tool with the namespace that it belongs to; `None` where only another API has it.
fn write_one(tool: &Tool, spelling: Spelling) -> Option<(Option<&str>, Value)> {
    if let Some(hosted) = spelling.hosted(tool) {
        return Some((None, hosted.write()));
    }
    let named = |kind: &str, name: &str, description: &Option<String>| {
        let mut fields = Map::new();
        fields.insert("type".into(), kind.into());
        fields.insert("name".into(), name.into());
        fields.extend(description.as_deref().map(|text| ("description".into(), text.into())));
        fields
    };
    match tool {
        Tool::Function { name, description, schema, strict, .. } => {
            let (namespace, name) = spelling.split(name);
            let mut fields = named("function", name, description);
            let schema = schema.clone();
            let none = || json!({"type": "object", "properties": {}});
            fields.insert("parameters".into(), schema.unwrap_or_else(none));
            let strict = strict.or(spelling.lenient.then_some(false));
            fields.extend(strict.map(|strict| ("strict".into(), strict.into())));
            Some((namespace, Value::Object(fields)))
        }
        Tool::Custom { name, description, format } => {
            let (namespace, name) = spelling.split(name);
            let mut fields = named("custom", name, description);
            fields.extend(format.clone().map(|format| ("format".into(), format)));
            Some((namespace, Value::Object(fields)))
        }
        Tool::Hosted(Foreign { dialect: Dialect::Responses, value }) => Some((None, value.clone())),
        Tool::Hosted(_) => None,
    }
}

/// Reads `tool_choice`; `None` for one that only this API knows.
pub(super) fn read_choice(value: &Value) -> Option<ToolChoice> {
    if let Some(word) = value.as_str() {
        return match word {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::None),
            "required" => Some(ToolChoice::Required),
            _ => None,
        };
    }
    let named = |tool: &Value| {
        let name = string(tool, "name").or_else(|| string(tool, "type"))?;
        Some(joined(string(tool, "namespace").unwrap_or_default(), name))
    };
    match string(value, "type")? {
        "function" | "custom" => {
            string(value, "name").and_then(|_| named(value)).map(ToolChoice::Named)
        }
        "local_shell" | "shell" | "apply_patch" => named(value).map(ToolChoice::Named),
        "allowed_tools" => Some(ToolChoice::Among {
            names: value["tools"].as_array()?.iter().filter_map(named).collect(),
            required: value["mode"] == "required",
        }),
        _ => None,
    }
}

pub(super) fn write_choice(choice: &ToolChoice, tools: &[Tool], spelling: Spelling) -> Value {
    let named = |name: &String| write_named(name, tools, spelling);
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => named(name),
        ToolChoice::Among { names, required } => json!({
            "type": "allowed_tools",
            "mode": if *required { "required" } else { "auto" },
            "tools": names.iter().map(named).collect::<Vec<_>>(),
        }),
    }
}

fn write_named(wanted: &str, tools: &[Tool], spelling: Spelling) -> Value {
    let of_name = |tool: &&Tool| match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => name == wanted,
        Tool::Hosted(foreign) => foreign.value["type"] == wanted,
    };
    let tool = tools.iter().find(of_name);
    let kind = match tool {
        Some(Tool::Hosted(_)) => return json!({ "type": wanted }),
        Some(tool) if spelling.hosted(tool).is_some() => return json!({ "type": wanted }),
        Some(Tool::Custom { .. }) => "custom",
        Some(Tool::Function { .. }) | None => "function",
    };
    let (namespace, name) = spelling.split(wanted);
    let mut value = json!({"type": kind, "name": name});
    if let Some(namespace) = namespace {
        value["namespace"] = namespace.into();
    }
    value
}
