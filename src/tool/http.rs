//! Tools that are one HTTP request: its address, query and body have places for arguments.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::egress::{Request, Site};
use super::kept::Net;
use super::{Answer, Attempt, Failure, FailureKind, Invocation, Runner};
use crate::canon::Effect;
use crate::config::{self, HttpTool, Piece, TextTemplate};

/// All but what RFC 3986 calls unreserved.
pub(super) const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    site: Site,
    tool: HttpTool,
    effect: Effect,
    /// Arguments that stand in the address or in the body's template.
    places: BTreeSet<String>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(net: &Net, tool: &HttpTool, terms: &config::Tool) -> Result<Self, String> {
        Ok(Self {
            site: Site::new(net, &tool.url.origin, &tool.web, terms)?,
            tool: tool.clone(),
            effect: terms.effect,
            places: tool.places(),
        })
    }

    /// What is asked for where nothing is written of it: each place, as a text.
    pub(super) fn schema(tool: &HttpTool) -> Value {
        let places = tool.places();
        let properties: Map<String, Value> =
            places.iter().map(|place| (place.clone(), json!({"type": "string"}))).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": places,
            "additionalProperties": false,
        })
    }

    async fn run(&self, call: &Invocation) -> Result<Answer, Failure> {
        let args = call.args.as_object().cloned().unwrap_or_default();
        let (path, body) = self.request(&args)?;
        let request = Request {
            method: &self.tool.method,
            path: &path,
            headers: &[],
            body,
            effect: self.effect,
            keyed: self.tool.idempotency,
        };
        self.site.call(request, call).await?.into_answer()
    }

    /// The path with its query, and the body.
    fn request(
        &self,
        args: &Map<String, Value>,
    ) -> Result<(String, Option<(HeaderValue, Bytes)>), Failure> {
        let tool = &self.tool;
        let mut query = render(&tool.url.query, args, Place::Query)?;
        for (name, template) in &tool.query {
            for value in parameter(template, args)? {
                push(&mut query, name, &value);
            }
        }
        let elsewhere = |(name, _): &(&String, &Value)| !self.places.contains(*name);
        let rest = args.iter().filter(elsewhere);
        let body = match (&tool.body, tool.method.as_str()) {
            (Some(body), _) => Some(fill(body, args)?.unwrap_or(Value::Null)),
            (None, "POST" | "PUT" | "PATCH") => {
                let rest = rest.map(|(name, value)| (name.clone(), value.clone()));
                Some(Value::Object(rest.collect()))
            }
            (None, _) => {
                for (name, value) in rest {
                    push_all(&mut query, name, &texts(name, value)?);
                }
                None
            }
        };
        let mut path = path(&tool.url.path, args)?;
        if !query.is_empty() {
            path = format!("{path}?{query}");
        }
        Ok((path, body.map(|body| (JSON, Bytes::from(body.to_string())))))
    }
}

impl Runner for Endpoint {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        Box::pin(self.run(call))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Path,
    Query,
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}

/// The path, every segment of which stays one.
pub(super) fn path(template: &TextTemplate, args: &Map<String, Value>) -> Result<String, Failure> {
    let path = render(template, args, Place::Path)?;
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(invalid("an argument may not be `.` or `..` in a path".to_owned()));
    }
    Ok(path)
}

fn render(
    template: &TextTemplate,
    args: &Map<String, Value>,
    place: Place,
) -> Result<String, Failure> {
    let mut rendered = String::new();
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => rendered.push_str(text),
            Piece::Place(name) => {
                let values = texts(name, args.get(name).unwrap_or(&Value::Null))?;
                let value = values.join(",");
                if place == Place::Path {
                    check_segment(name, &value)?;
                }
                rendered.extend(utf8_percent_encode(&value, ENCODED));
            }
        }
    }
    Ok(rendered)
}

/// Servers that decode twice, or know no difference between slashes, must not be led elsewhere.
pub(super) fn check_segment(name: &str, value: &str) -> Result<(), Failure> {
    let strange = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if value.is_empty() {
        return Err(invalid(format!("/{name}: is needed in the path and must not be empty")));
    }
    if value.contains(strange) || matches!(value, "." | "..") {
        return Err(invalid(format!("/{name}: must be one segment of a path")));
    }
    Ok(())
}

/// A value as it stands in an address: nothing for null, several for a list.
pub(super) fn texts(name: &str, value: &Value) -> Result<Vec<String>, Failure> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Bool(flag) => Ok(vec![flag.to_string()]),
        Value::Number(number) => Ok(vec![number.to_string()]),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) if list.iter().all(|it| !it.is_array() && !it.is_object()) => {
            let texts: Result<Vec<_>, _> = list.iter().map(|it| texts(name, it)).collect();
            Ok(texts?.concat())
        }
        Value::Array(_) | Value::Object(_) => {
            Err(invalid(format!("/{name}: stands in an address and must be one plain value")))
        }
    }
}

/// The values of a parameter: a lone place that is a list gives several, one without its argument
/// none.
fn parameter(template: &TextTemplate, args: &Map<String, Value>) -> Result<Vec<String>, Failure> {
    if let [Piece::Place(name)] = template.0.as_slice() {
        return texts(name, args.get(name).unwrap_or(&Value::Null));
    }
    let mut rendered = String::new();
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => rendered.push_str(text),
            Piece::Place(name) => {
                let values = texts(name, args.get(name).unwrap_or(&Value::Null))?;
                rendered.push_str(&values.join(","));
            }
        }
    }
    Ok(vec![rendered])
}

fn push_all(query: &mut String, name: &str, values: &[String]) {
    for value in values {
        push(query, name, value);
    }
}

pub(super) fn push(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.extend(utf8_percent_encode(name, ENCODED));
    query.push('=');
    query.extend(utf8_percent_encode(value, ENCODED));
}

/// A body's template with its arguments. A text that is one place is the argument, whatever it is;
/// a member whose argument is missing is left out.
fn fill(template: &Value, args: &Map<String, Value>) -> Result<Option<Value>, Failure> {
    match template {
        Value::String(text) => {
            let Ok(template) = TextTemplate::parse(text) else {
                return Ok(Some(text.clone().into()));
            };
            if let [Piece::Place(name)] = template.0.as_slice() {
                return Ok(args.get(name).cloned());
            }
            let values = parameter(&template, args)?;
            Ok(Some(Value::from(values.concat())))
        }
        Value::Array(list) => {
            let filled: Result<Vec<_>, _> = list.iter().map(|it| fill(it, args)).collect();
            Ok(Some(filled?.into_iter().flatten().collect()))
        }
        Value::Object(object) => {
            let mut filled = Map::new();
            for (name, template) in object {
                if let Some(value) = fill(template, args)? {
                    filled.insert(name.clone(), value);
                }
            }
            Ok(Some(Value::Object(filled)))
        }
        plain => Ok(Some(plain.clone())),
    }
}
