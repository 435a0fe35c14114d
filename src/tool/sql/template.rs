//! Statements with `:name` where values stand. Values are bound and never become part of the text.

use serde_json::{Map, Value, json};

use crate::config::SqlTemplate;

/// A statement as its database takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    /// With `$1` for the first of `names`, and so on.
    pub(super) sql: String,
    /// Each once, in the order in which they first stand there.
    pub(super) names: Vec<String>,
}

// === impl Template ===

impl Template {
    /// Finds the names, and none in texts, quoted names and comments.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut template = Self { sql: String::with_capacity(text.len()), names: Vec::new() };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
            let length = match first {
                '\'' | '"' | '`' | '-' | '/' | '$' | 'e' | 'E' => passed(rest)?,
                // A cast of Postgres'.
                ':' if rest.starts_with("::") => 2,
                ':' if rest[1..].starts_with(is_start) => {
                    let length = word(&rest[1..]);
                    template.bind(&rest[1..=length]);
                    rest = &rest[length + 1..];
                    continue;
                }
                // Whole words, so that no letter within one is taken for the beginning of a text.
                c if is_start(c) => word(rest),
                c => c.len_utf8(),
            };
            template.sql.push_str(&rest[..length]);
            rest = &rest[length..];
        }
        Ok(template)
    }

    fn bind(&mut self, name: &str) {
        let known = self.names.iter().position(|known| known == name);
        let at = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.sql.push('$');
        self.sql.push_str(&(at + 1).to_string());
    }

    /// JSON Schema of its parameters: all are needed, and of the types that are written for them.
    pub(super) fn schema(&self, written: &SqlTemplate) -> Result<Value, String> {
        if let Some(odd) = written.params.keys().find(|name| !self.names.contains(name)) {
            return Err(format!("`params`: the statement has no `:{odd}`"));
        }
        let kind = |name: &String| match written.params.get(name) {
            Some(kind) => json!({"type": kind}),
            None => json!({"type": ["string", "number", "boolean", "null"]}),
        };
        let properties: Map<_, _> =
            self.names.iter().map(|name| (name.clone(), kind(name))).collect();
        Ok(json!({
            "type": "object",
            "properties": properties,
            "required": self.names,
            "additionalProperties": false,
        }))
    }

    /// The values of its names.
    pub(super) fn values(&self, args: &Value) -> Vec<Value> {
        self.names.iter().map(|name| args.get(name).cloned().unwrap_or_default()).collect()
    }
}

/// How long what begins here is, in which no name stands.
fn passed(text: &str) -> Result<usize, String> {
    let quoted = |quote: char, escapes: bool, start: usize| {
        closed(&text[start..], quote, escapes).map(|length| start + length)
    };
    let bytes = text.as_bytes();
    match (bytes[0], bytes.get(1)) {
        (b'\'', _) => quoted('\'', false, 1),
        (b'"', _) => quoted('"', false, 1),
        (b'`', _) => quoted('`', false, 1),
        (b'e' | b'E', Some(b'\'')) => quoted('\'', true, 2),
        (b'e' | b'E', _) => Ok(word(text)),
        (b'-', Some(b'-')) => Ok(text.find('\n').unwrap_or(text.len())),
        (b'/', Some(b'*')) => {
            let end = text.find("*/").ok_or("a comment is not closed")?;
            Ok(end + 2)
        }
        (b'$', _) => dollars(text),
        _ => Ok(1),
    }
}

/// Behind the opening quote, up to the closing one; two are one that does not close.
fn closed(text: &str, quote: char, escapes: bool) -> Result<usize, String> {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let is_next = |next: &(usize, char)| next.1 == quote;
        if escapes && letter == '\\' {
            letters.next();
        } else if letter == quote && letters.next_if(is_next).is_none() {
            return Ok(at + quote.len_utf8());
        }
    }
    Err(format!("a {quote} is not closed"))
}

/// `$tag$ … $tag$` is a text in Postgres. Numbers are ours alone.
fn dollars(text: &str) -> Result<usize, String> {
    let tag = word(&text[1..]) + 1;
    if text[tag..].starts_with('$') {
        let (tag, behind) = text.split_at(tag + 1);
        let end = behind.find(tag).ok_or_else(|| format!("{tag} is not closed"))?;
        return Ok(tag.len() * 2 + end);
    }
    Err("write `:name` where a value is to stand, and not `$1`".to_owned())
}

fn word(text: &str) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String) {
        let template = Template::parse(text).unwrap();
        (template.sql, template.names.join(" "))
    }

    #[test]
    fn names_become_numbers_and_the_same_name_the_same_number() {
        let text = "select a from t where b = :sku and (c > :from or d = :sku)";
        let expected = "select a from t where b = $1 and (c > $2 or d = $1)";
        assert_eq!(parsed(text), (expected.to_owned(), "sku from".to_owned()));
        assert_eq!(parsed("select 1"), ("select 1".to_owned(), String::new()));
    }

    #[test]
    fn what_only_looks_like_a_name_stays() {
        for text in [
            "select ':a', \":b\", `:c`, '12:30', 'it''s :d'",
            "select '2024-01-01'::date, x::text -- :a\n from t /* :b */",
            "select $$ :a $$, $body$ $$ :b $body$, E'\\' :c', e'\\\\'",
            "select a[1:2], b :: int, c:=1 from name where one_e = 'é:x'",
            "select 1 -- :a",
        ] {
            assert_eq!(parsed(text), (text.to_owned(), String::new()));
        }
        assert_eq!(parsed("values(:a::date)"), ("values($1::date)".to_owned(), "a".to_owned()));
        assert_eq!(parsed("a[:i]"), ("a[$1]".to_owned(), "i".to_owned()));
        assert_eq!(parsed("name=':x' and e=:y"), ("name=':x' and e=$1".to_owned(), "y".to_owned()));
    }

    #[test]
    fn what_is_not_closed_and_a_number_are_told() {
        for text in ["select 'a", "select /* a", "select $a$ b", "select \"a", "select $1", "$a"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_parameter_is_needed_and_has_the_type_that_is_written() {
        let template = Template::parse("select :sku, :most").unwrap();
        let most = ("most".to_owned(), "integer".to_owned());
        let written = SqlTemplate { params: [most].into(), ..SqlTemplate::default() };
        let schema = template.schema(&written).unwrap();
        assert_eq!(schema["properties"]["most"], json!({"type": "integer"}));
        assert_eq!(schema["required"], json!(["sku", "most"]));
        let odd = ("odd".to_owned(), "null".to_owned());
        let written = SqlTemplate { params: [odd].into(), ..SqlTemplate::default() };
        assert_eq!(template.schema(&written).unwrap_err(), "`params`: the statement has no `:odd`");
    }
}
