//! Tools that are one GraphQL document, which the operator wrote: arguments are its variables.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::egress::{Request, Site};
use super::http::JSON;
use super::kept::Net;
use super::text::{clean, head};
use super::{Answer, Attempt, Failure, FailureKind, Invocation, Runner, Sent};
use crate::canon::Effect;
use crate::config::{self, GraphQlTool};

/// Errors of one answer that are told, and how much of them.
const MOST_ERRORS: usize = 5;
const LONGEST_ERRORS: usize = 1500;

/// One document and where it is sent.
#[derive(Debug)]
pub(super) struct Query {
    site: Site,
    text: String,
    operation: Operation,
    effect: Effect,
    keyed: bool,
}

/// What a document says of its one operation.
#[derive(Debug, Default, PartialEq)]
struct Operation {
    changes: bool,
    name: Option<String>,
    variables: Vec<Variable>,
}

#[derive(Debug, PartialEq)]
struct Variable {
    name: String,
    kind: Type,
    has_default: bool,
}

#[derive(Debug, PartialEq)]
enum Type {
    Named(String),
    List(Box<Type>),
    /// With a `!`.
    Needed(Box<Type>),
}

/// A document cut into names, signs and values.
struct Tokens<'a>(std::iter::Peekable<std::vec::IntoIter<&'a str>>);

// === impl Query ===

impl Query {
    pub(super) fn new(net: &Net, tool: &GraphQlTool, terms: &config::Tool) -> Result<Self, String> {
        let operation = Operation::parse(&tool.query).map_err(|why| format!("query: {why}"))?;
        if operation.changes && terms.effect == Effect::Read {
            return Err("query: is a mutation, and its effect is not `read`".to_owned());
        }
        if let Some(input) = &terms.input {
            operation.agree(input).map_err(|why| format!("input: {why}"))?;
        }
        let site = Site::new(net, &tool.url, &tool.web, terms)?;
        let (text, effect, keyed) = (tool.query.clone(), terms.effect, tool.idempotency);
        Ok(Self { site, text, operation, effect, keyed })
    }

    /// What is asked for where nothing is written of it.
    pub(super) fn schema(&self) -> Value {
        self.operation.schema()
    }

    async fn run(&self, call: &Invocation) -> Result<Answer, Failure> {
        let mut question = json!({"query": self.text, "variables": call.args});
        if let Some(name) = &self.operation.name {
            question["operationName"] = Value::from(name.as_str());
        }
        let request = Request {
            method: "POST",
            path: "",
            headers: &[],
            body: Some((JSON, Bytes::from(question.to_string()))),
            effect: self.effect,
            keyed: self.keyed,
        };
        let received = self.site.call(request, call).await?;
        let truncated = received.truncated;
        let answer = received.into_answer()?;
        if truncated {
            let why = "its answer is longer than may be kept; ask for less";
            return Err(Failure::new(FailureKind::BadOutput, why).sent(Sent::Maybe));
        }
        judge(answer)
    }
}

impl Runner for Query {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        Box::pin(self.run(call))
    }
}

/// A success of HTTP's may be none of GraphQL's.
fn judge(answer: Answer) -> Result<Answer, Failure> {
    let mut value = answer.value.unwrap_or_default();
    if let Some(errors) = value["errors"].as_array().filter(|errors| !errors.is_empty()) {
        // What has a value in spite of them was done.
        let fields = value["data"].as_object();
        let did = fields.is_some_and(|fields| fields.values().any(|field| !field.is_null()));
        let sent = if did { Sent::Maybe } else { Sent::Answered };
        return Err(Failure::new(FailureKind::Soft, told(errors)).sent(sent));
    }
    if let Some(data) = value.get_mut("data").map(Value::take) {
        return Ok(Answer { raw: answer.raw, ..Answer::json(data) });
    }
    let why = "its answer is none of GraphQL";
    Err(Failure::new(FailureKind::BadOutput, why).sent(Sent::Maybe))
}

fn told(errors: &[Value]) -> String {
    let error = |error: &Value| {
        let message = error["message"].as_str().unwrap_or("an error without a message");
        let path = error["path"].as_array().map(|path| {
            let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
            path.iter().map(step).collect::<Vec<_>>().join(".")
        });
        let code = error["extensions"]["code"].as_str();
        let place = path.filter(|path| !path.is_empty()).map(|path| format!(" (at {path})"));
        let code = code.map(|code| format!(" [{code}]"));
        format!("{message}{}{}", place.unwrap_or_default(), code.unwrap_or_default())
    };
    let mut told: Vec<_> = errors.iter().take(MOST_ERRORS).map(error).collect();
    if errors.len() > MOST_ERRORS {
        told.push(format!("and {} more", errors.len() - MOST_ERRORS));
    }
    head(&clean(&told.join("; ")), LONGEST_ERRORS).to_owned()
}

// === impl Operation ===

impl Operation {
    /// Reads the heads of a document's definitions, which must be one operation and its fragments.
    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens::cut(text)?;
        let mut found = None;
        while let Some(token) = tokens.next() {
            let operation = match token {
                "{" => {
                    tokens.leave("{", "}")?;
                    Self::default()
                }
                "query" | "mutation" => tokens.operation(token == "mutation")?,
                "fragment" => {
                    tokens.skip_body()?;
                    continue;
                }
                "subscription" => return Err("a subscription cannot be a tool".to_owned()),
                other => return Err(format!("{other:?} begins no operation")),
            };
            if found.replace(operation).is_some() {
                return Err("must be one operation".to_owned());
            }
        }
        found.ok_or_else(|| "must be one operation".to_owned())
    }

    fn schema(&self) -> Value {
        let property = |variable: &Variable| (variable.name.clone(), variable.kind.schema());
        let is_needed = |variable: &&Variable| {
            matches!(variable.kind, Type::Needed(_)) && !variable.has_default
        };
        let required: Vec<_> = self
            .variables
            .iter()
            .filter(is_needed)
            .map(|variable| variable.name.as_str())
            .collect();
        json!({
            "type": "object",
            "properties": self.variables.iter().map(property).collect::<Map<_, _>>(),
            "required": required,
            "additionalProperties": false,
        })
    }

    /// Whether a schema asks for nothing but variables, and for all that are needed.
    fn agree(&self, input: &Value) -> Result<(), String> {
        let none = Map::new();
        let properties = input["properties"].as_object().unwrap_or(&none);
        let is_variable =
            |name: &&String| self.variables.iter().any(|variable| variable.name == **name);
        if let Some(odd) = properties.keys().find(|name| !is_variable(name)) {
            return Err(format!("\"{odd}\" is no variable of the query"));
        }
        let is_missing = |variable: &&Variable| {
            let is_needed = matches!(variable.kind, Type::Needed(_)) && !variable.has_default;
            is_needed && !properties.contains_key(&variable.name)
        };
        match self.variables.iter().find(is_missing) {
            Some(missing) => Err(format!("has no property for the variable ${}", missing.name)),
            None => Ok(()),
        }
    }
}

// === impl Type ===

impl Type {
    fn schema(&self) -> Value {
        let plain = match self {
            Self::Needed(kind) => return kind.bare(),
            kind => kind.bare(),
        };
        match plain.get("type") {
            Some(Value::String(kind)) => with_type(&plain, json!([kind, "null"])),
            Some(Value::Array(kinds)) => {
                let kinds: Vec<_> = kinds.iter().cloned().chain([json!("null")]).collect();
                with_type(&plain, kinds.into())
            }
            _ => plain,
        }
    }

    /// Without null.
    fn bare(&self) -> Value {
        match self {
            Self::Needed(kind) => kind.bare(),
            Self::List(items) => json!({"type": "array", "items": items.schema()}),
            Self::Named(name) => match name.as_str() {
                "Int" => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
                "Float" => json!({"type": "number"}),
                "String" => json!({"type": "string"}),
                "Boolean" => json!({"type": "boolean"}),
                "ID" => json!({"type": ["string", "integer"]}),
                // Only the server knows what is in it.
                other => json!({"description": format!("{other}, as the server defines it")}),
            },
        }
    }
}

fn with_type(schema: &Value, kind: Value) -> Value {
    let mut schema = schema.clone();
    schema["type"] = kind;
    schema
}

// === impl Tokens ===

impl<'a> Tokens<'a> {
    /// Without commas and comments, which mean nothing.
    fn cut(text: &'a str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '#' => rest.find('\n').unwrap_or(rest.len()),
                '"' => string(rest)?,
                '.' if rest.starts_with("...") => 3,
                c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => {
                    let is_part =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
                    rest[1..].find(|c| !is_part(c)).map_or(rest.len(), |at| at + 1)
                }
                c => c.len_utf8(),
            };
            let (token, behind) = rest.split_at(length);
            if !matches!(first, '#' | ',' | '\u{feff}') && !first.is_whitespace() {
                tokens.push(token);
            }
            rest = behind;
        }
        Ok(Self(tokens.into_iter().peekable()))
    }

    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.0.next_if_eq(&token).is_some()
    }

    /// Behind `query` or `mutation`.
    fn operation(&mut self, changes: bool) -> Result<Operation, String> {
        let is_name = |token: &&str| !matches!(*token, "(" | "{" | "@");
        let name = self.0.next_if(is_name).map(str::to_owned);
        let variables = if self.take("(") { self.variables()? } else { Vec::new() };
        self.skip_body()?;
        Ok(Operation { changes, name, variables })
    }

    fn variables(&mut self) -> Result<Vec<Variable>, String> {
        let mut variables = Vec::new();
        while !self.take(")") {
            let wrong = || "its variables are not closed".to_owned();
            if !self.take("$") {
                return Err(wrong());
            }
            let name = self.next().ok_or_else(wrong)?.to_owned();
            if !self.take(":") {
                return Err(format!("${name} has no type"));
            }
            let kind = self.kind()?;
            let has_default = self.take("=");
            self.skip_value()?;
            variables.push(Variable { name, kind, has_default });
        }
        Ok(variables)
    }

    /// Past defaults and directives, to the next variable.
    fn skip_value(&mut self) -> Result<(), String> {
        while let Some(token) = self.0.next_if(|token| !matches!(*token, "$" | ")")) {
            if let Some(closing) = closing(token) {
                self.leave(token, closing)?;
            }
        }
        Ok(())
    }

    fn kind(&mut self) -> Result<Type, String> {
        let kind = if self.take("[") {
            let items = self.kind()?;
            if !self.take("]") {
                return Err("the type of a variable is not closed".to_owned());
            }
            Type::List(Box::new(items))
        } else {
            let name = self.next().ok_or("a variable has no type")?;
            Type::Named(name.to_owned())
        };
        Ok(if self.take("!") { Type::Needed(Box::new(kind)) } else { kind })
    }

    /// Past what is between here and the end of the next braces.
    fn skip_body(&mut self) -> Result<(), String> {
        while let Some(token) = self.next() {
            match token {
                "{" => return self.leave("{", "}"),
                "(" => self.leave("(", ")")?,
                _ => {}
            }
        }
        Err("an operation has no body".to_owned())
    }

    /// Past the sign that closes what is open.
    fn leave(&mut self, open: &str, close: &str) -> Result<(), String> {
        let mut depth = 1;
        for token in self.0.by_ref() {
            if token == open {
                depth += 1;
            } else if token == close {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(format!("a `{open}` is not closed"))
    }
}

fn closing(token: &str) -> Option<&'static str> {
    match token {
        "(" => Some(")"),
        "[" => Some("]"),
        "{" => Some("}"),
        _ => None,
    }
}

/// How long the string is that begins here.
fn string(text: &str) -> Result<usize, String> {
    let open = || "a string is not closed".to_owned();
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let mut from = 0;
        loop {
            let at = from + block[from..].find("\"\"\"").ok_or_else(open)?;
            if !block[..at].ends_with('\\') {
                return Ok(at + 6);
            }
            from = at + 3;
        }
    }
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '\n' => break,
            '"' if !is_escaped => return Ok(at + 1),
            _ => is_escaped = letter == '\\' && !is_escaped,
        }
    }
    Err(open())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::openapi::tests::{Stand, call};

    fn parsed(text: &str) -> Operation {
        Operation::parse(text).unwrap()
    }

    #[test]
    fn variables_become_a_schema() {
        let operation = parsed(
            "# one\nquery Shop($sku: String!, $most: Int = 5, $tags: [String!], $at: DateTime!, \
             $ids: [ID!]! @x(a: \"$b\")) @cached(ttl: 5) { product(sku: $sku) { ...P } } \
             fragment P on Product { name(first: 3) { \"\"\"a } \"\"\" x } }",
        );
        assert_eq!((operation.name.as_deref(), operation.changes), (Some("Shop"), false));
        let expected = json!({
            "type": "object",
            "properties": {
                "sku": {"type": "string"},
                "most": {"type": ["integer", "null"], "minimum": i32::MIN, "maximum": i32::MAX},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}},
                "at": {"description": "DateTime, as the server defines it"},
                "ids": {"type": "array", "items": {"type": ["string", "integer"]}},
            },
            "required": ["sku", "at", "ids"],
            "additionalProperties": false,
        });
        assert_eq!(operation.schema(), expected);
        assert_eq!(parsed("{ a(x: \"}\") }"), Operation::default());
        assert!(parsed("mutation($a:Float){b(a:$a)}").changes);
        let defaults = parsed("query($a: In = {b: [1, {c: \"$x\"}]} $d: Boolean!) { e }");
        assert_eq!(defaults.variables.len(), 2);
    }

    #[test]
    fn what_is_not_one_operation_is_told() {
        for text in [
            "",
            "query A { a } query B { b }",
            "subscription { a }",
            "type A { b: C }",
            "query { a",
            "query($a) { a }",
            "query($a: [Int) { a }",
            "query($a: Int { a }",
            "{ a(b: \"c) }",
            "fragment A on B { c }",
            "query A",
        ] {
            assert!(Operation::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_written_schema_must_fit_the_variables() {
        let operation = parsed("query($sku: String!, $most: Int! = 5) { a }");
        let fits = |input: Value| operation.agree(&input);
        assert_eq!(fits(json!({"properties": {"sku": {"pattern": "^A"}}})), Ok(()));
        assert!(fits(json!({"properties": {"sku": {}, "x": {}}})).unwrap_err().contains("\"x\""));
        assert!(fits(json!({"properties": {"most": {}}})).unwrap_err().contains("$sku"));
    }

    #[test]
    fn errors_in_a_success_are_a_failure_with_their_messages() {
        let judged = |value: Value| judge(Answer::json(value));
        let errors = json!({"data": {"a": null}, "errors": [
            {"message": "no such product", "path": ["a", 0, "b"], "extensions": {"code": "NOT_FOUND"}},
            {"odd": 1}]});
        let failure = judged(errors).unwrap_err();
        assert_eq!((failure.kind, failure.sent), (FailureKind::Soft, Sent::Answered));
        let expected = "no such product (at a.0.b) [NOT_FOUND]; an error without a message";
        assert_eq!(failure.message, expected);
        let partly = json!({"data": {"a": {"b": null}}, "errors": [{"message": "no b"}]});
        assert_eq!(judged(partly).unwrap_err().sent, Sent::Maybe, "`a` was done");
        let many: Vec<_> = (0..9).map(|_| json!({"message": "x".repeat(1000)})).collect();
        let failure = judged(json!({"errors": many})).unwrap_err();
        assert!(failure.message.len() <= LONGEST_ERRORS + 10);
        let answer = judged(json!({"data": {"a": 1}, "errors": []})).unwrap();
        assert_eq!(answer.value, Some(json!({"a": 1})));
        for odd in [json!({}), json!([1]), json!("x"), Value::Null] {
            let failure = judged(odd).unwrap_err();
            assert_eq!((failure.kind, failure.sent), (FailureKind::BadOutput, Sent::Maybe));
        }
    }

    #[tokio::test]
    async fn arguments_are_sent_as_variables_and_never_in_the_query() {
        let stand = Stand::open(200, "{\"data\":{\"product\":{\"price\":1}}}").await;
        let query = "query One($sku: String!) { product(sku: $sku) { price } }";
        let web = config::Web { allow_private: true, ..config::Web::default() };
        let (url, query) = (format!("{}/graphql", stand.url), query.to_owned());
        let tool = GraphQlTool { url, query, idempotency: true, web };
        let terms = config::Tool { effect: Effect::Idempotent, ..config::Tool::default() };
        let made = Query::new(&Net::alone(), &tool, &terms).unwrap();
        let hostile = "\") { price } } mutation { drop } #";
        let answer = made.attempt(&call(json!({"sku": hostile}))).await.unwrap();
        assert_eq!(answer.value, Some(json!({"product": {"price": 1}})));
        let (first, head, body) = stand.last();
        assert_eq!(first, "POST /graphql");
        assert!(head.contains("idempotency-key: key-1"), "{head}");
        let sent: Value = serde_json::from_str(&body).unwrap();
        let expected =
            json!({"query": tool.query, "variables": {"sku": hostile}, "operationName": "One"});
        assert_eq!(sent, expected);
        let failing = Stand::open(200, "{\"errors\":[{\"message\":\"no\"}]}").await;
        let tool = GraphQlTool { url: failing.url.clone(), ..tool };
        let made = Query::new(&Net::alone(), &tool, &terms).unwrap();
        let failure = made.attempt(&call(json!({"sku": "1"}))).await.unwrap_err();
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Soft, "no"));
    }

    #[test]
    fn a_mutation_is_no_read() {
        let tool = GraphQlTool {
            url: "https://shop.test/graphql".to_owned(),
            query: "mutation { a }".to_owned(),
            ..GraphQlTool::default()
        };
        let terms = config::Tool { effect: Effect::Read, ..config::Tool::default() };
        assert!(Query::new(&Net::alone(), &tool, &terms).unwrap_err().contains("mutation"));
        let terms = config::Tool { effect: Effect::Once, ..config::Tool::default() };
        assert!(Query::new(&Net::alone(), &tool, &terms).is_ok());
    }
}
