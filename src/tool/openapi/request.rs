//! Arguments spelled as an operation's request: path, query, headers, cookies and body.

use http::header::COOKIE;
use http::{HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value};

use super::operation::{Argument, Operation, Place, Style};
use crate::tool::http::{ENCODED, check_segment};
use crate::tool::{Failure, FailureKind};

/// What is sent for one call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Spelled {
    /// With its query.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Value>,
}

// === impl Operation ===

impl Operation {
    /// Arguments that are null are not sent, but for those of the body.
    pub(super) fn spell(&self, args: &Value) -> Result<Spelled, Failure> {
        let mut spelled = Spelled { path: self.path.clone(), ..Spelled::default() };
        let (mut query, mut cookies) = (Vec::new(), Vec::new());
        let mut members = Map::new();
        for argument in &self.arguments {
            let Some(value) = args.get(&argument.name) else { continue };
            match argument.place {
                Place::Body => drop(members.insert(argument.written.clone(), value.clone())),
                Place::WholeBody => spelled.body = Some(value.clone()),
                Place::Path(style) => {
                    let place = format!("{{{}}}", argument.written);
                    let text = segment(argument, value, style)?;
                    spelled.path = spelled.path.replace(&place, &text);
                }
                _ if value.is_null() => {}
                Place::Query(style) => query.extend(pairs(argument, value, style, &encoded)?),
                Place::Cookie(style) => cookies.extend(pairs(argument, value, style, &encoded)?),
                Place::Header(style) => {
                    let text = spelled_as(argument, value, style, &plain)?;
                    spelled.headers.push(header(argument, &text)?);
                }
            }
        }
        members.extend(self.others(args));
        // What is left of the template would lead elsewhere.
        if spelled.path.split('/').any(|it| matches!(it, "." | "..") || it.contains(['{', '}'])) {
            let why = "an argument of the path is missing, or is `.` or `..`";
            return Err(Failure::new(FailureKind::Invalid, why));
        }
        if !members.is_empty() || self.needs_body {
            spelled.body = Some(Value::Object(members));
        }
        if !query.is_empty() {
            let between = if spelled.path.contains('?') { '&' } else { '?' };
            spelled.path = format!("{}{between}{}", spelled.path, query.join("&"));
        }
        if !cookies.is_empty() {
            // It is all spelled in letters that any header takes.
            let cookies = HeaderValue::try_from(cookies.join("; ")).ok();
            spelled.headers.extend(cookies.map(|it| (COOKIE, it)));
        }
        Ok(spelled)
    }

    /// Members of the body that the document allows and does not name.
    fn others(&self, args: &Value) -> Map<String, Value> {
        let is_named = |name: &str| self.arguments.iter().any(|argument| argument.name == name);
        let others = args.as_object().into_iter().flatten();
        let others = others.filter(|(name, _)| !is_named(name));
        others.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// How a name or a value is spelled where it stands.
type Spelling<'a> = &'a dyn Fn(&str) -> String;

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn plain(text: &str) -> String {
    text.to_owned()
}

/// A value as it stands in a path, if it is a segment of one.
fn segment(argument: &Argument, value: &Value, style: Style) -> Result<String, Failure> {
    let bare = if style == Style::Json { style } else { Style::Joined(',', false) };
    check_segment(&argument.name, &spelled_as(argument, value, bare, &plain)?)?;
    spelled_as(argument, value, style, &encoded)
}

/// A value as `name=value`, once or several times.
fn pairs(
    argument: &Argument,
    value: &Value,
    style: Style,
    spell: Spelling<'_>,
) -> Result<Vec<String>, Failure> {
    let name = spell(&argument.written);
    let one = |value: &Value| Ok(spell(&text(argument, value)?));
    match (style, value) {
        (Style::Repeated, Value::Array(items)) => {
            items.iter().map(|item| Ok(format!("{name}={}", one(item)?))).collect()
        }
        (Style::Repeated, Value::Object(members)) => members
            .iter()
            .map(|(member, value)| Ok(format!("{}={}", spell(member), one(value)?)))
            .collect(),
        (Style::Deep, Value::Object(members)) => {
            let deep = |member: &String| spell(&format!("{}[{member}]", argument.written));
            let pair = |(member, value)| Ok(format!("{}={}", deep(member), one(value)?));
            members.iter().map(pair).collect()
        }
        (style, value) => {
            Ok(vec![format!("{name}={}", spelled_as(argument, value, style, spell)?)])
        }
    }
}

fn header(argument: &Argument, text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let name = HeaderName::try_from(&argument.written);
    let value = HeaderValue::from_str(text);
    match (name, value) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(invalid(argument, "cannot stand in a header")),
    }
}

/// One text of a value, whatever it is.
fn spelled_as(
    argument: &Argument,
    value: &Value,
    style: Style,
    spell: Spelling<'_>,
) -> Result<String, Failure> {
    let listed =
        |between: &str, equals| parts(argument, value, equals, spell).map(|it| it.join(between));
    match style {
        Style::Json => Ok(spell(&value.to_string())),
        Style::Joined(between, equals) => {
            // What parts them is no part of them; where a letter cannot stand, its code does.
            let between = if between == ',' { ",".to_owned() } else { spell(&between.to_string()) };
            listed(&between, equals)
        }
        Style::Repeated | Style::Deep => listed(",", false),
        Style::Label(explode) => {
            Ok(format!(".{}", listed(if explode { "." } else { "," }, explode)?))
        }
        Style::Matrix(true) if value.is_array() || value.is_object() => {
            let pairs = pairs(argument, value, Style::Repeated, spell)?;
            Ok(format!(";{}", pairs.join(";")))
        }
        Style::Matrix(_) => Ok(format!(";{}={}", spell(&argument.written), listed(",", false)?)),
    }
}

/// What stands between commas and the like; members of objects as `a=b`, or as two of them.
fn parts(
    argument: &Argument,
    value: &Value,
    equals: bool,
    spell: Spelling<'_>,
) -> Result<Vec<String>, Failure> {
    let one = |value: &Value| Ok(spell(&text(argument, value)?));
    match value {
        Value::Array(items) => items.iter().map(one).collect(),
        Value::Object(members) if equals => members
            .iter()
            .map(|(member, value)| Ok(format!("{}={}", spell(member), one(value)?)))
            .collect(),
        Value::Object(members) => {
            let mut parts = Vec::new();
            for (member, value) in members {
                parts.extend([spell(member), one(value)?]);
            }
            Ok(parts)
        }
        single => Ok(vec![one(single)?]),
    }
}

fn text(argument: &Argument, value: &Value) -> Result<String, Failure> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(invalid(argument, "is nested deeper than a parameter can be"))
        }
    }
}

fn invalid(argument: &Argument, why: &str) -> Failure {
    Failure::new(FailureKind::Invalid, format!("/{}: {why}", argument.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The table of examples of the specification: for nothing, a text, a list and an object, each
    /// as it is spelled.
    #[test]
    fn each_style_is_spelled_as_the_specification_shows_it() {
        let color = |place| Argument { name: "color".into(), written: "color".into(), place };
        let list = json!(["blue", "black", "brown"]);
        let object = json!({"R": 100, "G": 200, "B": 150});
        let path = |style, value: &Value| {
            spelled_as(&color(Place::Path(style)), value, style, &encoded).unwrap()
        };
        for (style, single, several, members) in [
            (
                Style::Matrix(false),
                ";color=blue",
                ";color=blue,black,brown",
                ";color=R,100,G,200,B,150",
            ),
            (
                Style::Matrix(true),
                ";color=blue",
                ";color=blue;color=black;color=brown",
                ";R=100;G=200;B=150",
            ),
            (Style::Label(false), ".blue", ".blue,black,brown", ".R,100,G,200,B,150"),
            (Style::Label(true), ".blue", ".blue.black.brown", ".R=100.G=200.B=150"),
            (Style::Joined(',', false), "blue", "blue,black,brown", "R,100,G,200,B,150"),
            (Style::Joined(',', true), "blue", "blue,black,brown", "R=100,G=200,B=150"),
        ] {
            let told = [json!("blue"), list.clone(), object.clone()].map(|it| path(style, &it));
            assert_eq!(told, [single, several, members], "{style:?}");
        }
        let query = |style, value: &Value| {
            pairs(&color(Place::Query(style)), value, style, &encoded).unwrap().join("&")
        };
        for (style, several, members) in [
            (Style::Repeated, "color=blue&color=black&color=brown", "R=100&G=200&B=150"),
            (Style::Joined(',', false), "color=blue,black,brown", "color=R,100,G,200,B,150"),
            (
                Style::Joined(' ', false),
                "color=blue%20black%20brown",
                "color=R%20100%20G%20200%20B%20150",
            ),
            (
                Style::Joined('|', false),
                "color=blue%7Cblack%7Cbrown",
                "color=R%7C100%7CG%7C200%7CB%7C150",
            ),
        ] {
            assert_eq!(
                [query(style, &list), query(style, &object)],
                [several, members],
                "{style:?}"
            );
            assert_eq!(query(style, &json!("")), "color=", "{style:?}");
        }
        let deep = query(Style::Deep, &object);
        assert_eq!(deep, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150");
        // What parts values cannot come with one.
        assert_eq!(path(Style::Joined(',', false), &json!(["a,b", "c;d"])), "a%2Cb,c%3Bd");
    }

    #[test]
    fn cookies_are_one_header() {
        let cookie = |name: &str| {
            let place = Place::Cookie(Style::Repeated);
            Argument { name: name.into(), written: name.into(), place }
        };
        let operation = Operation {
            id: "look".into(),
            method: "GET".into(),
            path: "/look".into(),
            server: None,
            description: String::new(),
            arguments: vec![cookie("color"), cookie("size"), cookie("none")],
            media_type: None,
            needs_body: false,
            input: json!({}),
            output: None,
        };
        let args = json!({"color": ["blue", "b;k"], "size": "x y", "none": null});
        let spelled = operation.spell(&args).unwrap();
        let expected = HeaderValue::from_static("color=blue; color=b%3Bk; size=x%20y");
        assert_eq!(spelled.headers, [(COOKIE, expected)]);
        assert_eq!(spelled.path, "/look");
    }
}
