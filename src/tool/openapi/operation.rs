//! One operation of a document: its arguments as one flat object, and where each of them goes.

use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::document::{Document, Way};
use crate::tool::http::JSON;

/// Of a description, what models are told.
const LONGEST_DESCRIPTION: usize = 1000;
/// The longest name of an argument that every provider takes.
const LONGEST_NAME: usize = 64;
/// The argument that is the whole body, where that is no object with properties.
const BODY: &str = "body";
/// Headers that are not for who calls: the standard says so of the first three, and the others are
/// the connection's own.
const OWN_HEADERS: &[&str] = &[
    "accept",
    "authorization",
    "baggage",
    "content-type",
    "connection",
    "content-length",
    "cookie",
    "host",
    "idempotency-key",
    "proxy-authorization",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What can be called, and how.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: String,
    /// With `{names}` of parameters in it.
    pub(super) path: String,
    /// The server, where the document names one.
    pub(super) server: Option<String>,
    pub(super) description: String,
    pub(super) arguments: Vec<Argument>,
    /// What its body is said to be, where it has one.
    pub(super) media_type: Option<HeaderValue>,
    /// A body is sent even if it has no members.
    pub(super) needs_body: bool,
    /// JSON Schema of all arguments together, and of what comes back where that is looked at.
    pub(super) input: Value,
    pub(super) output: Option<Value>,
}

/// One argument and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    /// What models call it.
    pub(super) name: String,
    /// What the server calls it.
    pub(super) written: String,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path(Style),
    Query(Style),
    Header(Style),
    Cookie(Style),
    /// A member of the body, or all of it.
    Body,
    WholeBody,
}

/// How lists and objects become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Between commas, or what else stands between them; and whether members of objects are `a=b`.
    Joined(char, bool),
    /// Each on its own: `a=1&a=2`.
    Repeated,
    /// `.1.2` and `;a=1;a=2`; whether each stands on its own.
    Label(bool),
    Matrix(bool),
    /// `a[b]=c`.
    Deep,
    /// As JSON.
    Json,
}

/// An argument with its schema, before all have their names.
struct Draft {
    written: String,
    place: Place,
    schema: Value,
    is_required: bool,
}

/// What is sent as a body.
#[derive(Default)]
struct Body {
    drafts: Vec<Draft>,
    media_type: Option<HeaderValue>,
    /// It may not be missing.
    is_required: bool,
    /// What members may be that have no name in the document.
    others: Option<Value>,
}

/// What an object has.
#[derive(Default)]
struct Members {
    properties: Map<String, Value>,
    required: Vec<String>,
    others: Option<Value>,
}

/// Where an operation stands in its document.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    /// What all operations of the path have in common.
    pub(super) shared: &'a Value,
    pub(super) operation: &'a Value,
}

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

impl Site<'_> {
    fn id(&self) -> String {
        match self.operation["operationId"].as_str() {
            Some(id) => id.to_owned(),
            None => plain(&format!("{}{}", self.method, self.path.replace(['{', '}'], ""))),
        }
    }
}

impl Document {
    /// Where all operations stand, by their ids. Those without one are named after method and path.
    pub(super) fn operations(&self) -> Result<Vec<(String, Site<'_>)>, String> {
        let mut found: Vec<(String, Site<'_>)> = Vec::new();
        let paths = self.root()["paths"].as_object().into_iter().flatten();
        for (path, item) in paths.filter(|(path, _)| path.starts_with('/')) {
            let shared = self.follow(item).map_err(|why| format!("{path}: {why}"))?;
            let site = |method| Some(Site { path, method, shared, operation: shared.get(method)? });
            found.extend(METHODS.into_iter().filter_map(site).map(|site| (site.id(), site)));
        }
        for (at, (id, _)) in found.iter().enumerate() {
            if found[..at].iter().any(|(known, _)| known == id) {
                return Err(format!("{id}: there are two operations of this name"));
            }
        }
        Ok(found)
    }

    /// One operation; `taken` are headers that the operator sends, which nobody else chooses.
    pub(super) fn operation(
        &self,
        id: &str,
        site: Site<'_>,
        taken: &[String],
    ) -> Result<Operation, String> {
        let mut drafts = self.parameters(site, taken)?;
        let body = self.body(site.operation)?;
        drafts.extend(body.drafts);
        // What stands behind a `#` is told apart by it in the document only, and never sent.
        let path = site.path.split('#').next().unwrap_or_default();
        for name in places(path) {
            let is_it =
                |draft: &Draft| matches!(draft.place, Place::Path(_)) && draft.written == name;
            if !drafts.iter().any(is_it) {
                return Err(format!("its path has {{{name}}}, and there is no such parameter"));
            }
        }
        let (arguments, mut input) = joined(drafts, body.is_required);
        input["additionalProperties"] = body.others.unwrap_or(Value::Bool(false));
        Ok(Operation {
            id: id.to_owned(),
            method: site.method.to_ascii_uppercase(),
            path: path.to_owned(),
            server: self.server(site),
            description: description(site.operation),
            needs_body: body.is_required && arguments.iter().any(|it| it.place == Place::Body),
            arguments,
            media_type: body.media_type,
            input,
            output: None,
        })
    }

    /// Those of the path, and those of the operation in their place.
    fn parameters(&self, site: Site<'_>, taken: &[String]) -> Result<Vec<Draft>, String> {
        let mut found: Vec<&Value> = Vec::new();
        let same =
            |one: &Value, other: &Value| one["name"] == other["name"] && one["in"] == other["in"];
        for owner in [site.shared, site.operation] {
            for parameter in owner["parameters"].as_array().into_iter().flatten() {
                let parameter = self.follow(parameter)?;
                found.retain(|known| !same(known, parameter));
                found.push(parameter);
            }
        }
        let drafts = found.into_iter().filter_map(|it| self.parameter(it, taken).transpose());
        drafts.collect()
    }

    /// `None` for what is not for who calls.
    fn parameter(&self, parameter: &Value, taken: &[String]) -> Result<Option<Draft>, String> {
        let name = parameter["name"].as_str().ok_or("a parameter has no name")?;
        let named = |why: String| format!("parameter {name}: {why}");
        let kind = parameter["in"].as_str().unwrap_or_default();
        let is_required = parameter["required"].as_bool().unwrap_or(false) || kind == "path";
        let content = parameter["content"].as_object().and_then(|content| content.values().next());
        let style = match content {
            Some(_) => Style::Json,
            None => style(parameter, kind).map_err(named)?,
        };
        let place = match kind {
            "path" => Place::Path(style),
            "query" => Place::Query(style),
            "header" => {
                let lower = name.to_ascii_lowercase();
                if OWN_HEADERS.contains(&lower.as_str()) || taken.contains(&lower) {
                    return Ok(None);
                }
                Place::Header(style)
            }
            // It is one header, whoever writes it.
            "cookie" if taken.iter().any(|it| it.eq_ignore_ascii_case("cookie")) => {
                return Ok(None);
            }
            "cookie" => Place::Cookie(style),
            _ => return Err(named(format!("is in {kind:?}, where nothing can be sent"))),
        };
        let schema = content.unwrap_or(parameter).get("schema").unwrap_or(&Value::Bool(true));
        let mut schema = self.schema(schema, Way::Request).map_err(named)?;
        let description = parameter["description"].as_str();
        if let (Value::Object(schema), Some(description)) = (&mut schema, description) {
            schema.entry("description").or_insert_with(|| description.into());
        }
        Ok(Some(Draft { written: name.to_owned(), place, schema, is_required }))
    }

    /// The members of a body that is an object, or else all of it as one argument.
    fn body(&self, operation: &Value) -> Result<Body, String> {
        let Some(body) = operation.get("requestBody") else { return Ok(Body::default()) };
        let named = |why: String| format!("body: {why}");
        let body = self.follow(body).map_err(named)?;
        let is_required = body["required"].as_bool().unwrap_or(false);
        let content = body["content"].as_object().cloned().unwrap_or_default();
        let declared = content.iter().find(|(kind, _)| is_json(kind));
        // JSON is among what may be anything.
        let any = || content.iter().find(|(kind, _)| matches!(&***kind, "*/*" | "application/*"));
        let Some((kind, media)) = declared.or_else(any) else {
            if content.is_empty() && !is_required {
                return Ok(Body::default());
            }
            return Err("its body is no JSON".to_owned());
        };
        let media_type = Some(HeaderValue::from_str(kind).ok().filter(|_| !kind.contains('*')));
        let media_type = media_type.map(|declared| declared.unwrap_or(JSON));
        let schema = media.get("schema").unwrap_or(&Value::Bool(true));
        let schema = self.schema(schema, Way::Request).map_err(named)?;
        let Some(Members { properties, required, others }) = members(&schema) else {
            let (written, place) = (BODY.to_owned(), Place::WholeBody);
            let drafts = vec![Draft { written, place, schema, is_required }];
            return Ok(Body { drafts, media_type, is_required, others: None });
        };
        let draft = |(name, schema): (String, Value)| {
            let is_required = required.contains(&name);
            Draft { written: name, place: Place::Body, schema, is_required }
        };
        let drafts = properties.into_iter().map(draft).collect();
        Ok(Body { drafts, media_type, is_required, others })
    }

    /// JSON Schema of what an operation gives when all goes well.
    pub(super) fn output(&self, operation: &Value) -> Result<Option<Value>, String> {
        let Some(responses) = operation["responses"].as_object() else { return Ok(None) };
        let success = |code: &&String| code.starts_with('2');
        let Some(response) = responses.keys().find(success).and_then(|code| responses.get(code))
        else {
            return Ok(None);
        };
        let named = |why: String| format!("response: {why}");
        let response = self.follow(response).map_err(named)?;
        let content = response["content"].as_object().into_iter().flatten();
        let Some(schema) = content
            .into_iter()
            .find(|(kind, _)| is_json(kind))
            .and_then(|(_, it)| it.get("schema"))
        else {
            return Ok(None);
        };
        self.schema(schema, Way::Response).map(Some).map_err(named)
    }

    /// The first server that is named for it, with the usual values of its variables.
    fn server(&self, site: Site<'_>) -> Option<String> {
        let owners = [site.operation, site.shared, self.root()];
        let server = owners.iter().find_map(|owner| owner["servers"].get(0))?;
        let mut url = server["url"].as_str()?.to_owned();
        for (name, variable) in server["variables"].as_object().into_iter().flatten() {
            url = url.replace(&format!("{{{name}}}"), variable["default"].as_str()?);
        }
        Some(url)
    }
}

/// Names in braces.
pub(super) fn places(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn is_json(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn style(parameter: &Value, kind: &str) -> Result<Style, String> {
    let usual = if matches!(kind, "query" | "cookie") { "form" } else { "simple" };
    let style = parameter["style"].as_str().unwrap_or(usual);
    let explode = parameter["explode"].as_bool().unwrap_or(style == "form");
    match (kind, style, explode) {
        ("query" | "cookie", "form", true) => Ok(Style::Repeated),
        ("query" | "cookie", "form", false) => Ok(Style::Joined(',', false)),
        ("query", "spaceDelimited", _) => Ok(Style::Joined(' ', false)),
        ("query", "pipeDelimited", _) => Ok(Style::Joined('|', false)),
        ("query", "deepObject", _) => Ok(Style::Deep),
        ("path" | "header", "simple", explode) => Ok(Style::Joined(',', explode)),
        ("path", "label", explode) => Ok(Style::Label(explode)),
        ("path", "matrix", explode) => Ok(Style::Matrix(explode)),
        ("path" | "query" | "header" | "cookie", style, _) => {
            Err(format!("its style {style:?} is not known"))
        }
        // Complained of by its place.
        _ => Ok(Style::Json),
    }
}

fn description(operation: &Value) -> String {
    let text = |key: &str| operation[key].as_str().unwrap_or_default().trim();
    let (summary, long) = (text("summary"), text("description"));
    let mut whole = match (summary, long) {
        (summary, "") => summary.to_owned(),
        ("", long) => long.to_owned(),
        (summary, long) if long.starts_with(summary) => long.to_owned(),
        (summary, long) => format!("{summary}\n{long}"),
    };
    if operation["deprecated"].as_bool() == Some(true) {
        whole.push_str(" (deprecated)");
    }
    crate::tool::text::head(whole.trim(), LONGEST_DESCRIPTION).to_owned()
}

/// Properties of an object, which of them are required, and what others may be; also where it is said
/// in parts. `None` for what is not only that.
fn members(schema: &Value) -> Option<Members> {
    let object = schema.as_object()?;
    let is_other = |key: &&String| {
        matches!(key.as_str(), "oneOf" | "anyOf" | "not" | "if" | "enum" | "const" | "$ref")
    };
    let is_object = object.get("type").is_none_or(|kind| *kind == "object");
    if !is_object || object.keys().any(|key| is_other(&key)) {
        return None;
    }
    let own = object.get("properties").and_then(Value::as_object);
    let mut properties = own.cloned().unwrap_or_default();
    let names = |required: &Value| {
        let names = required.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut required = object.get("required").map(names).unwrap_or_default();
    // Where nothing is said of others, there are none.
    let mut others = object.get("additionalProperties").cloned();
    for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let more = part_members(part)?;
        others = others.or(more.others);
        for (name, schema) in more.properties {
            let joined = match properties.remove(&name) {
                Some(known) if known != schema => json!({"allOf": [known, schema]}),
                _ => schema,
            };
            properties.insert(name, joined);
        }
        required.extend(more.required);
    }
    let others = others.filter(|others| *others != Value::Bool(false));
    let is_empty = properties.is_empty();
    (!is_empty).then_some(Members { properties, required, others })
}

/// The same of one part, which may only say what is required.
fn part_members(part: &Value) -> Option<Members> {
    if let Some(members) = members(part) {
        return Some(members);
    }
    let object = part.as_object()?;
    let harmless =
        |key: &String| matches!(key.as_str(), "type" | "required" | "description" | "title");
    if !object.keys().all(harmless) || object.get("type").is_some_and(|kind| *kind != "object") {
        return None;
    }
    let required = object.get("required").and_then(Value::as_array).into_iter().flatten();
    let required = required.filter_map(Value::as_str).map(str::to_owned).collect();
    Some(Members { required, ..Members::default() })
}

/// All arguments in one object. What stands in the path keeps its name, then what stands in the
/// query, in headers, in cookies and in the body; one whose name is taken is named after its place too:
/// `body_id`. A body that may be missing has all that it requires once it has a member.
fn joined(mut drafts: Vec<Draft>, needs_body: bool) -> (Vec<Argument>, Value) {
    let rank = |place: Place| match place {
        Place::Path(_) => 0,
        Place::Query(_) => 1,
        Place::Header(_) => 2,
        Place::Cookie(_) => 3,
        Place::Body | Place::WholeBody => 4,
    };
    drafts.sort_by_key(|draft| rank(draft.place));
    let (mut arguments, mut properties) = (Vec::new(), Map::new());
    let (mut required, mut of_body) = (Vec::new(), Vec::new());
    for Draft { written, place, schema, is_required } in drafts {
        let prefix = ["path", "query", "header", "cookie", "body"][rank(place)];
        let mut name = plain(&written);
        while properties.contains_key(&name) {
            name = plain(&format!("{prefix}_{name}"));
            if name.len() == LONGEST_NAME && properties.contains_key(&name) {
                name = plain(&format!("{}_{}", arguments.len(), written));
            }
        }
        if is_required && place == Place::Body && !needs_body {
            of_body.push(name.clone());
        } else if is_required {
            required.push(Value::from(name.as_str()));
        }
        properties.insert(name.clone(), schema);
        arguments.push(Argument { name, written, place });
    }
    let mut input = json!({
        "type": "object",
        "properties": properties,
        "required": required,
    });
    if !of_body.is_empty() {
        let members = arguments.iter().filter(|argument| argument.place == Place::Body);
        let members = members.map(|member| (member.name.clone(), json!(of_body)));
        input["dependentRequired"] = members.collect::<Map<_, _>>().into();
    }
    (arguments, input)
}

/// Of letters that every provider takes.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let name =
        if name.trim_matches('_').is_empty() { name } else { name.trim_matches('_').to_owned() };
    name.chars().take(LONGEST_NAME).collect()
}
