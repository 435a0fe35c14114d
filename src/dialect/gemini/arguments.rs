//! A call's arguments, put together from the pieces in which newer models stream them.

use serde_json::{Map, Value, json};

use super::wire::PartialArg;
use crate::dialect::Misread;

/// Paths deeper, and lists longer, than these are no arguments.
const DEEPEST: usize = 64;
const LONGEST: usize = 10_000;

/// The arguments of one call so far.
#[derive(Debug)]
pub(super) struct Arguments {
    whole: Value,
    /// The paths of texts that later pieces go on with.
    unfinished: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Name(String),
    Place(usize),
}

// === impl Arguments ===

impl Arguments {
    pub(super) fn new(first: Option<Value>) -> Self {
        let whole = first.filter(Value::is_object).unwrap_or_else(|| json!({}));
        Self { whole, unfinished: Vec::new() }
    }

    pub(super) fn add(&mut self, piece: PartialArg) -> Result<(), Misread> {
        let value = match (piece.string_value, piece.number_value, piece.bool_value) {
            (Some(text), _, _) => Value::String(text),
            (None, Some(number), _) => number,
            (None, None, Some(truth)) => Value::Bool(truth),
            (None, None, None) => Value::Null,
        };
        let goes_on = self.unfinished.contains(&piece.json_path);
        let place = place(&mut self.whole, &steps(&piece.json_path)?)?;
        match (place, value) {
            (Value::String(text), Value::String(more)) if goes_on => text.push_str(&more),
            (place, value) => *place = value,
        }
        self.unfinished.retain(|path| *path != piece.json_path);
        if piece.will_continue.unwrap_or_default() {
            self.unfinished.push(piece.json_path);
        }
        Ok(())
    }

    /// The whole as JSON; nothing if a text in it was cut.
    pub(super) fn finish(self) -> Option<String> {
        self.unfinished.is_empty().then(|| self.whole.to_string())
    }
}

/// `$.a[0]['b']` as steps (RFC 9535, as far as it names one value).
fn steps(path: &str) -> Result<Vec<Step>, Misread> {
    let wrong = || Misread::new("A streamed argument has a `jsonPath` that names no one value.");
    let mut rest = path.strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() && steps.len() <= DEEPEST {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(Step::Name(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some((quote, after)) =
            ["['", "[\""].iter().find_map(|open| Some((&open[1..], rest.strip_prefix(open)?)))
        {
            let (name, after) = after.split_once(&format!("{quote}]")).ok_or_else(wrong)?;
            steps.push(Step::Name(name.to_owned()));
            rest = after;
        } else {
            let (place, after) =
                rest.strip_prefix('[').and_then(|after| after.split_once(']')).ok_or_else(wrong)?;
            steps.push(Step::Place(place.parse().map_err(|_| wrong())?));
            rest = after;
        }
    }
    if steps.is_empty() || steps.len() > DEEPEST { Err(wrong()) } else { Ok(steps) }
}

/// The place that a path names, made if it is not there yet.
fn place<'a>(whole: &'a mut Value, steps: &[Step]) -> Result<&'a mut Value, Misread> {
    let mut at = whole;
    for step in steps {
        at = match step {
            Step::Name(name) => {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                &mut at[name.as_str()]
            }
            Step::Place(place) => {
                if *place >= LONGEST {
                    return Err(Misread::new("A streamed argument is a list beyond all measure."));
                }
                if !at.is_array() {
                    *at = Value::Array(Vec::new());
                }
                if let Some(list) = at.as_array_mut()
                    && list.len() <= *place
                {
                    list.resize(*place + 1, Value::Null);
                }
                &mut at[*place]
            }
        };
    }
    Ok(at)
}
