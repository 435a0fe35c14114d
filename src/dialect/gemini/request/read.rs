//! Reads a question as Gemini's clients spell it.

use serde_json::{Map, Value};

use super::field::{get, list, object, string, text, wrong};
use super::{FUNCTION_FIELD, content, field, settings};
use crate::canon::{ChatRequest, Dialect, Foreign, Tool, ToolChoice};
use crate::dialect::{Misread, schema, turns};

/// Fields of a function's declaration that every API has.
const SHARED: [&str; 4] = ["name", "description", "parameters", "parametersJsonSchema"];

pub(in super::super) fn read(body: &[u8]) -> Result<ChatRequest, Misread> {
    let value: Value = serde_json::from_slice(body)?;
    let fields = object(&value, "the body")?;
    let mut request = ChatRequest::default();
    request.extras.dialect = Some(Dialect::Gemini);
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match field::camel(name).as_ref() {
            "model" => {
                let model = string(value, name)?;
                model.strip_prefix("models/").unwrap_or(&model).clone_into(&mut request.model);
            }
            // Read below, after what they depend on.
            "contents" | "systemInstruction" => {}
            "tools" => request.tools = read_tools(value, &mut request.extras.fields)?,
            "toolConfig" => read_tool_config(object(value, name)?, &mut request)?,
            "generationConfig" => settings::read(object(value, name)?, &mut request)?,
            "serviceTier" => request.service_tier = Some(string(value, name)?),
            _ => keep(&mut request, plain(name)?.to_owned(), value.clone()),
        }
    }
    if let Some(system) = get(fields, "systemInstruction") {
        request.messages.push(content::read_system(system)?);
    }
    let contents = get(fields, "contents").ok_or_else(|| wrong("contents", "a list"))?;
    let (messages, beside) = content::read(contents)?;
    request.messages.extend(turns::join(messages));
    request.extras.fields.extend(beside);
    Ok(request)
}

/// Reads a body of `countTokens`: the question itself, or one in `generateContentRequest`.
pub(in super::super) fn read_count(body: &[u8]) -> Result<ChatRequest, Misread> {
    let value: Value = serde_json::from_slice(body)?;
    match get(object(&value, "the body")?, "generateContentRequest") {
        Some(inner) => read(inner.to_string().as_bytes()),
        None => read(body),
    }
}

/// A name with a dot would be taken for a path, and could stand for a field that was read already.
pub(super) fn plain(name: &str) -> Result<&str, Misread> {
    let unknown = || Misread::new(format!("`{name}` is no field of this API."));
    Some(name).filter(|name| !name.contains('.')).ok_or_else(unknown)
}

/// Keeps a field that has no common meaning, by its path.
pub(super) fn keep(request: &mut ChatRequest, path: String, value: Value) {
    request.extras.fields.insert(path, value);
}

/// Reads the tools. The declarations' own fields go among the extras, by the functions' names: so
/// each is a tool that every API has, and a target that lacks a field can name it.
fn read_tools(value: &Value, extras: &mut Map<String, Value>) -> Result<Vec<Tool>, Misread> {
    let mut tools = Vec::new();
    for (place, tool) in list(value, "tools")?.iter().enumerate() {
        let path = format!("tools[{place}]");
        for (name, value) in object(tool, &path)?.iter().filter(|(_, value)| !value.is_null()) {
            if field::camel(name) == "functionDeclarations" {
                let path = format!("{path}.{name}");
                read_functions(value, &path, &mut tools, extras)?;
            } else {
                let value = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
                tools.push(Tool::Hosted(Foreign { dialect: Dialect::Gemini, value }));
            }
        }
    }
    Ok(tools)
}

fn read_functions(
    functions: &Value,
    path: &str,
    tools: &mut Vec<Tool>,
    extras: &mut Map<String, Value>,
) -> Result<(), Misread> {
    for (place, function) in list(functions, path)?.iter().enumerate() {
        tools.push(read_function(function, &format!("{path}[{place}]"), extras)?);
    }
    Ok(())
}

fn read_function(
    function: &Value,
    path: &str,
    extras: &mut Map<String, Value>,
) -> Result<Tool, Misread> {
    let fields = object(function, path)?;
    let name = text(fields, "name").ok_or_else(|| wrong(&format!("{path}.name"), "a string"))?;
    for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        if !SHARED.contains(&field::camel(field).as_ref()) {
            let values = extras.entry(format!("{FUNCTION_FIELD}{}", field::camel(field)));
            values.or_insert_with(|| Value::Object(Map::new()))[name] = value.clone();
        }
    }
    let schema = match (get(fields, "parametersJsonSchema"), get(fields, "parameters")) {
        (Some(schema), _) => Some(schema.clone()),
        (None, openapi) => openapi.map(schema::from_openapi),
    };
    Ok(Tool::Function {
        name: name.to_owned(),
        description: text(fields, "description").filter(|text| !text.is_empty()).map(str::to_owned),
        schema,
        strict: None,
        cache: None,
    })
}

fn read_tool_config(fields: &Map<String, Value>, request: &mut ChatRequest) -> Result<(), Misread> {
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        if field::camel(name) != "functionCallingConfig" {
            keep(request, format!("toolConfig.{}", plain(name)?), value.clone());
            continue;
        }
        let path = format!("toolConfig.{name}");
        let config = object(value, &path)?;
        let path = format!("{path}.allowedFunctionNames");
        let names = match get(config, "allowedFunctionNames") {
            Some(names) => list(names, &path)?.iter().map(|name| string(name, &path)).collect(),
            None => Ok(Vec::new()),
        }?;
        let mode = text(config, "mode").unwrap_or("AUTO").to_ascii_uppercase();
        request.tool_choice = match (mode.as_str(), names.as_slice()) {
            ("NONE", _) => Some(ToolChoice::None),
            ("ANY", []) => Some(ToolChoice::Required),
            ("ANY", [name]) => Some(ToolChoice::Named(name.clone())),
            ("ANY", _) => Some(ToolChoice::Among { names, required: true }),
            ("VALIDATED", []) => {
                let path = "toolConfig.functionCallingConfig.mode".to_owned();
                keep(request, path, Value::from("VALIDATED"));
                Some(ToolChoice::Auto)
            }
            (_, []) => Some(ToolChoice::Auto),
            _ => Some(ToolChoice::Among { names, required: false }),
        };
    }
    Ok(())
}
