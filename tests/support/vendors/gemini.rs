//! Google's `generateContent`, at the Gemini API and at Vertex AI.

use serde_json::{Map, Value, json};

use super::model::{self, FRESH, Prompt, READ, Reply, SPOKEN, WHOLE, call_content, seal};
use super::shape::{self, Fault, Shape, Wrong, bracketed, each, find_schema, text};
use super::{Answer, Refusal, Request, Vendor, demand};

const FAMILY: &str = "gemini";
/// What the docs give for calls that another model made.
const DUMMIES: [&str; 2] =
    ["context_engineering_is_the_way_to_go", "skip_thought_signature_validator"];

const REQUEST: Shape = &[
    ("contents", "!array"),
    ("systemInstruction", "object"),
    ("tools", "array"),
    ("toolConfig", "object"),
    ("generationConfig", "object"),
    ("safetySettings", "array"),
    ("cachedContent", "string"),
    ("labels", "object"),
    ("serviceTier", "string"),
];
const CONTENT: Shape = &[("role", "string"), ("parts", "!array")];
const PART: Shape = &[
    ("text", "string"),
    ("thought", "boolean"),
    ("thoughtSignature", "string"),
    ("inlineData", "object"),
    ("fileData", "object"),
    ("functionCall", "object"),
    ("functionResponse", "object"),
    ("executableCode", "object"),
    ("codeExecutionResult", "object"),
    ("videoMetadata", "object"),
    ("mediaResolution", "object"),
];
const CALL: Shape = &[("id", "string"), ("name", "!string"), ("args", "object")];
const RESPONSE: Shape = &[
    ("id", "string"),
    ("name", "!string"),
    ("response", "!object"),
    ("parts", "array"),
    ("willContinue", "boolean"),
    ("scheduling", "string"),
];
const DATA: Shape = &[("mimeType", "!string"), ("data", "!string"), ("displayName", "string")];
const TOOL: Shape = &[
    ("functionDeclarations", "array"),
    ("googleSearch", "object"),
    ("codeExecution", "object"),
    ("urlContext", "object"),
];
const DECLARATION: Shape = &[
    ("name", "!string"),
    ("description", "string"),
    ("parameters", "object"),
    ("parametersJsonSchema", "object"),
    ("response", "object"),
    ("responseJsonSchema", "object"),
    ("behavior", "string"),
];
const SETTINGS: Shape = &[
    ("stopSequences", "array"),
    ("responseMimeType", "string"),
    ("responseSchema", "object"),
    ("responseJsonSchema", "object"),
    ("responseModalities", "array"),
    ("candidateCount", "integer"),
    ("maxOutputTokens", "integer"),
    ("temperature", "number"),
    ("topP", "number"),
    ("topK", "number"),
    ("seed", "integer"),
    ("presencePenalty", "number"),
    ("frequencyPenalty", "number"),
    ("responseLogprobs", "boolean"),
    ("logprobs", "integer"),
    ("speechConfig", "object"),
    ("thinkingConfig", "object"),
    ("mediaResolution", "string"),
];
const THINKING: Shape =
    &[("includeThoughts", "boolean"), ("thinkingBudget", "integer"), ("thinkingLevel", "string")];
/// The fields of `Schema`, which is less than JSON Schema.
const SCHEMA: [&str; 24] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "items",
    "maxItems",
    "minItems",
    "properties",
    "propertyOrdering",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "minimum",
    "maximum",
    "default",
    "name",
    "key",
];

pub(super) fn answer(vendor: Vendor, request: &Request, body: &Value) -> Result<Answer, Refusal> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let key =
        request.header("x-goog-api-key").or_else(|| request.header("authorization")).is_some();
    let refused = || {
        Refusal::new(
            403,
            "Method doesn't allow unregistered callers (callers without established identity).",
        )
    };
    (key || query.contains("key=")).then_some(()).ok_or_else(refused)?;
    // At Vertex AI the version without `beta` has fewer fields, and no tier is read from a body.
    let first = vendor == Vendor::Vertex && path.starts_with("/v1/");
    demand(!first, "Invalid JSON payload received. Unknown name \"id\": Cannot find field.")?;
    let tier = vendor == Vendor::Vertex && body["serviceTier"].is_string();
    demand(!tier, "Invalid value at 'service_tier'")?;
    let (model, method) = path.rsplit_once(':').unwrap_or((path, ""));
    let model = model.rsplit('/').next().unwrap_or_default();
    let body = &camel(body);
    object(body, "", REQUEST)?;
    let mut prompt = read(vendor, model, body)?;
    prompt.model = model.to_owned();
    check_settings(model, &body["generationConfig"], &mut prompt)?;
    prompt.tools = check_tools(body)?;
    let reply = prompt.answer();
    let visible =
        body.pointer("/generationConfig/thinkingConfig/includeThoughts") == Some(&json!(true));
    // Newer models sign whether they were asked to think or not.
    let signs = prompt.thinks || model.starts_with("gemini-3");
    let parts = parts(&reply, visible, signs);
    let ids = json!({"modelVersion": model, "responseId": reply.id("", WHOLE)});
    match method {
        "generateContent" => {
            let mut whole =
                json!({"candidates": [candidate(&parts, true)], "usageMetadata": usage(&reply)});
            merge(&mut whole, &ids);
            Ok(Answer::Whole(whole))
        }
        "streamGenerateContent" => Ok(stream(query, &reply, &parts, &ids)),
        _ => Err(Refusal::new(404, "Requested entity was not found.")),
    }
}

/// Names of fields in the one of two spellings that is written here. What users name stays.
fn camel(value: &Value) -> Value {
    let users =
        ["args", "response", "parametersJsonSchema", "responseJsonSchema", "properties", "labels"];
    match value {
        Value::Array(all) => all.iter().map(camel).collect(),
        Value::Object(fields) => {
            let spelled = |(name, value): (&String, &Value)| {
                let mut parts = name.split('_').filter(|part| !part.is_empty());
                let first = parts.next().unwrap_or_default().to_owned();
                let name =
                    parts.fold(first, |name, part| name + &part[..1].to_uppercase() + &part[1..]);
                let kept = users.contains(&name.as_str());
                (name, if kept { value.clone() } else { camel(value) })
            };
            Value::Object(fields.iter().map(spelled).collect())
        }
        plain => plain.clone(),
    }
}

/// Protocol buffers know no other fields than these.
fn object<'a>(
    value: &'a Value,
    path: &str,
    shape: Shape,
) -> Result<&'a Map<String, Value>, Refusal> {
    shape::object(value, path, shape, false).map_err(|Fault { path, wrong }| {
        let path = bracketed(&path);
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let place = if parent.is_empty() { String::new() } else { format!(" at '{parent}'") };
        Refusal::new(400, match wrong {
            Wrong::Unknown => format!("Invalid JSON payload received. Unknown name \"{name}\"{place}: Cannot find field."),
            Wrong::Missing => format!("* GenerateContentRequest.{path}: {name} is not specified\n"),
            Wrong::Type(types) => format!("Invalid value at '{path}' ({types})"),
        })
    })
}

fn check_settings(model: &str, settings: &Value, prompt: &mut Prompt) -> Result<(), Refusal> {
    if settings.is_null() {
        return Ok(());
    }
    object(settings, "generation_config", SETTINGS)?;
    let stops = settings["stopSequences"].as_array().map_or(0, Vec::len);
    demand(stops <= 5, "The number of stop sequences must be at most 5.")?;
    if let Some(schema) = settings.get("responseSchema") {
        check_schema(schema, "generation_config.response_schema")?;
    }
    let schema = settings.get("responseSchema").or_else(|| settings.get("responseJsonSchema"));
    let json = settings["responseMimeType"] == "application/json";
    demand(
        json || schema.is_none(),
        "Function calling config / response schema requires response_mime_type: 'application/json'",
    )?;
    prompt.schema = schema.cloned().or_else(|| json.then(|| json!({"type": "object"})));
    let penalty = ["frequencyPenalty", "presencePenalty"]
        .iter()
        .any(|name| settings[*name].as_f64().is_some_and(|penalty| penalty != 0.0));
    let takes = model.starts_with("gemini-2.0");
    demand(takes || !penalty, format!("Penalty is not enabled for models/{model}"))?;
    let thinking = &settings["thinkingConfig"];
    if thinking.is_null() {
        return Ok(());
    }
    object(thinking, "generation_config.thinking_config", THINKING)?;
    let (budget, level) = (&thinking["thinkingBudget"], &thinking["thinkingLevel"]);
    demand(
        budget.is_null() || level.is_null(),
        "You can only set only one of thinking budget and thinking level.",
    )?;
    demand(
        level.is_null() || model.starts_with("gemini-3"),
        "Thinking level is not supported for this model.",
    )?;
    prompt.thinks = budget != &json!(0);
    Ok(())
}

fn check_schema(schema: &Value, path: &str) -> Result<(), Refusal> {
    let bad = |object: &Map<String, Value>| {
        if let Some(name) = object.keys().find(|name| !SCHEMA.contains(&name.as_str())) {
            return Some(format!("Unknown name \"{name}\""));
        }
        let kinds = [
            "string",
            "number",
            "integer",
            "boolean",
            "array",
            "object",
            "null",
            "type_unspecified",
        ];
        let kind =
            object.get("type").map(|kind| kind.as_str().unwrap_or("[]").to_ascii_lowercase());
        kind.filter(|kind| !kinds.contains(&kind.as_str()))
            .map(|_| "Proto field is not repeating, cannot start list.".to_owned())
    };
    let found = find_schema(schema, path, &bad);
    found.map_or(Ok(()), |(path, what)| {
        Err(Refusal::new(
            400,
            format!("Invalid JSON payload received. {what} at '{path}': Cannot find field."),
        ))
    })
}

fn check_tools(body: &Value) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for (path, tool) in each(body.get("tools"), "tools") {
        object(tool, &path, TOOL)?;
        for (path, function) in
            each(tool.get("functionDeclarations"), &format!("{path}.function_declarations"))
        {
            object(function, &path, DECLARATION)?;
            if let Some(schema) = function.get("parameters") {
                let empty = text(schema, "type").eq_ignore_ascii_case("object")
                    && schema["properties"].as_object().is_some_and(Map::is_empty);
                demand(
                    !empty,
                    format!(
                        "* GenerateContentRequest.{path}.parameters.properties: should be non-empty for OBJECT type\n"
                    ),
                )?;
                check_schema(schema, &format!("{path}.parameters"))?;
            }
            let name = text(function, "name");
            let good = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.len() <= 64;
            demand(good, format!("Invalid function name: {name}."))?;
            names.push(name.to_owned());
        }
    }
    let none = body.pointer("/toolConfig/functionCallingConfig/mode") == Some(&json!("NONE"));
    Ok(if none { Vec::new() } else { names })
}

fn read(vendor: Vendor, model: &str, body: &Value) -> Result<Prompt, Refusal> {
    let mut prompt = Prompt::default();
    if let Some(system) = body.get("systemInstruction") {
        object(system, "system_instruction", CONTENT)?;
        prompt.system = each(system.get("parts"), "").map(|(_, part)| text(part, "text")).collect();
    }
    let contents: Vec<_> = each(body.get("contents"), "contents").collect();
    demand(!contents.is_empty(), "* GenerateContentRequest.contents: contents is not specified\n")?;
    // Signatures are demanded from where the user spoke last.
    let speaks = |content: &Value| {
        text(content, "role") != "model"
            && each(content.get("parts"), "").any(|(_, part)| part["functionResponse"].is_null())
    };
    let current = contents.iter().rposition(|(_, content)| speaks(content)).unwrap_or(0);
    let mut calls: Option<Vec<String>> = None;
    for (at, (path, content)) in contents.iter().enumerate() {
        object(content, path, CONTENT)?;
        let role = text(content, "role");
        let role = if role.is_empty() && vendor == Vendor::Gemini { "user" } else { role };
        demand(matches!(role, "user" | "model"), "Please use a valid role: user, model.")?;
        let parts: Vec<_> = each(content.get("parts"), &format!("{path}.parts")).collect();
        demand(
            !parts.is_empty(),
            format!("* GenerateContentRequest.{path}.parts: contents.parts must not be empty.\n"),
        )?;
        for (path, part) in &parts {
            check_part(part, path)?;
        }
        if role == "model" {
            demand(calls.is_none(), COUNT)?;
            demand(
                at > 0,
                "Please ensure that function call turn comes immediately after a user turn or after a function response turn.",
            )?;
            calls = say(&mut prompt, &parts, model.starts_with("gemini-3") && at > current)?;
        } else {
            hear(&mut prompt, &parts, calls.take())?;
        }
    }
    demand(calls.is_none(), COUNT)?;
    Ok(prompt)
}

const COUNT: &str = "Please ensure that the number of function response parts is equal to the \
                     number of function call parts of the function call turn.";

fn check_part(part: &Value, path: &str) -> Result<(), Refusal> {
    let object_of = object(part, path, PART)?;
    let kinds = [
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "executableCode",
        "codeExecutionResult",
    ];
    let data = object_of.keys().filter(|name| kinds.contains(&name.as_str())).count();
    demand(
        data == 1,
        format!(
            "* GenerateContentRequest.{path}.data: required oneof field 'data' must have one initialized field\n"
        ),
    )?;
    for (name, shape) in
        [("functionCall", CALL), ("functionResponse", RESPONSE), ("inlineData", DATA)]
    {
        if let Some(value) = part.get(name) {
            object(value, &format!("{path}.{name}"), shape)?;
        }
    }
    let Some(signature) = part["thoughtSignature"].as_str() else { return Ok(()) };
    let call = &part["functionCall"];
    let content = if call.is_null() {
        String::new()
    } else {
        call_content(text(call, "name"), &call["args"])
    };
    // It is bytes, which may come in the alphabet for addresses too.
    let standard = signature.replace('-', "+").replace('_', "/");
    let good = standard == seal(FAMILY, &content) || DUMMIES.contains(&signature);
    demand(good, format!("Corrupted thought signature at {path}."))
}

fn hear(
    prompt: &mut Prompt,
    parts: &[(String, &Value)],
    calls: Option<Vec<String>>,
) -> Result<(), Refusal> {
    let responses: Vec<_> = parts
        .iter()
        .map(|(_, part)| &part["functionResponse"])
        .filter(|part| !part.is_null())
        .collect();
    let calls = calls.unwrap_or_default();
    demand(responses.len() == calls.len(), COUNT)?;
    for response in &responses {
        demand(calls.iter().any(|name| name == text(response, "name")), COUNT)?;
    }
    let words: Vec<_> =
        parts.iter().map(|(_, part)| text(part, "text")).filter(|said| !said.is_empty()).collect();
    let mut images = Vec::new();
    for (path, part) in parts.iter().filter(|(_, part)| part["inlineData"].is_object()) {
        let data = &part["inlineData"];
        let read = model::media(text(data, "mimeType"), text(data, "data"));
        images.push(read.ok_or_else(|| Refusal::new(400, format!("Invalid value at '{path}.inline_data.data' (TYPE_BYTES), Base64 decoding failed")))?);
    }
    if responses.is_empty() || !words.is_empty() {
        prompt.hear(&words.join("\n"), images);
    }
    prompt.results = responses.iter().map(|response| response["response"].to_string()).collect();
    Ok(())
}

/// What the model said before; gives the names of the functions that it called.
fn say(
    prompt: &mut Prompt,
    parts: &[(String, &Value)],
    signed: bool,
) -> Result<Option<Vec<String>>, Refusal> {
    let spoken = parts.iter().filter(|(_, part)| part["thought"] != json!(true));
    let said: String = spoken.map(|(_, part)| text(part, "text")).collect();
    prompt.say(&said);
    let calls: Vec<_> = parts.iter().filter(|(_, part)| part["functionCall"].is_object()).collect();
    let Some((path, first)) = calls.first() else { return Ok(None) };
    // Of parallel calls only the first is signed.
    let unsigned = signed && first["thoughtSignature"].is_null();
    demand(
        !unsigned,
        format!(
            "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and missing thought_signature may lead to degraded model performance. Additional data, function call `{}`, position {path}.",
            text(&first["functionCall"], "name")
        ),
    )?;
    Ok(Some(calls.iter().map(|(_, part)| text(&part["functionCall"], "name").to_owned()).collect()))
}

fn parts(reply: &Reply, visible: bool, signs: bool) -> Vec<Value> {
    let mut parts = Vec::new();
    let thought = reply.thought.iter().filter(|_| visible);
    parts.extend(thought.map(|thought| json!({"text": thought, "thought": true})));
    let mut said = json!({"text": reply.text});
    if signs && reply.calls.is_empty() {
        said["thoughtSignature"] = json!(seal(FAMILY, ""));
    }
    parts.push(said);
    parts.extend(reply.calls.iter().enumerate().map(|(at, (name, arguments))| {
        let mut part = json!({"functionCall": {"name": name, "args": arguments}});
        if signs && at == 0 {
            part["thoughtSignature"] = json!(seal(FAMILY, &call_content(name, arguments)));
        }
        part
    }));
    parts
}

fn candidate(parts: &[Value], last: bool) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    candidate
}

fn usage(reply: &Reply) -> Value {
    let input = FRESH + READ;
    let mut usage = json!({
        "promptTokenCount": input, "candidatesTokenCount": SPOKEN, "totalTokenCount": input + reply.output(),
        "cachedContentTokenCount": READ, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": input}],
    });
    if reply.thought.is_some() {
        usage["thoughtsTokenCount"] = json!(reply.reasoning());
    }
    usage
}

fn merge(value: &mut Value, more: &Value) {
    for (name, field) in more.as_object().into_iter().flatten() {
        value[name] = field.clone();
    }
}

fn stream(query: &str, reply: &Reply, parts: &[Value], ids: &Value) -> Answer {
    let mut pieces = Vec::new();
    for part in parts {
        let Some(said) = part["text"].as_str() else {
            pieces.push(part.clone());
            continue;
        };
        pieces.extend(Reply::pieces(said).into_iter().map(|piece| {
            let mut part = part.clone();
            part["text"] = json!(piece);
            part.as_object_mut().and_then(|part| part.remove("thoughtSignature"));
            part
        }));
        // The signature of a streamed text comes on an empty part behind it.
        let signature = part.get("thoughtSignature");
        pieces
            .extend(signature.map(|signature| json!({"text": "", "thoughtSignature": signature})));
    }
    let last = pieces.len() - 1;
    let chunks: Vec<_> = pieces
        .into_iter()
        .enumerate()
        .map(|(at, part)| {
            let mut usage = usage(reply);
            if at < last {
                usage["candidatesTokenCount"] = json!(at + 1);
            }
            let mut chunk =
                json!({"candidates": [candidate(&[part], at == last)], "usageMetadata": usage});
            merge(&mut chunk, ids);
            chunk
        })
        .collect();
    if query.contains("alt=sse") {
        // Google ends its lines as HTTP does.
        let events = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n").into_bytes());
        return Answer::Stream("text/event-stream", events.collect());
    }
    Answer::Stream("application/json", vec![json!(chunks).to_string().into_bytes()])
}

pub(super) fn refusal(refusal: &Refusal) -> Value {
    let status = match refusal.status {
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        _ => "INVALID_ARGUMENT",
    };
    json!({"error": {"code": refusal.status, "message": refusal.message, "status": status}})
}
