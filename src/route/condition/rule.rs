//! Conditions on JSON: `args.amount > 2000 || run.confidence < 0.7`.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{Expr, IdedExpr};
use cel::parser::PrattParser;
use cel::{Context, Value};
use serde_json::Value as Json;

use super::names::DEEPEST;
use super::{ENVIRONMENT, LONGEST};

/// One expression that is true or false of some JSON. It contains no loops.
#[derive(Debug)]
pub struct Rule {
    expression: IdedExpr,
}

impl Rule {
    /// `names` are all that it may speak of.
    pub fn compile(source: &str, names: &[&str]) -> Result<Self, String> {
        if source.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let parsed = PrattParser::default().parse(source);
        let expression = parsed.map_err(|errors| match errors.errors.first() {
            Some(first) => format!("{}, at column {}", first.msg, first.pos.1),
            None => "is not an expression".to_owned(),
        })?;
        look(&expression, names, 0)?;
        Ok(Self { expression })
    }

    /// Whether it is true of these values. The error says why that cannot be told.
    pub fn holds(&self, values: &[(&str, &Json)]) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, value) in values {
            context.add_variable_from_value(*name, cel_value(value));
        }
        match Value::resolve(&self.expression, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("is neither true nor false but {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn look(node: &IdedExpr, names: &[&str], depth: u32) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("is nested more than {DEEPEST} deep"));
    }
    let mut parts: Vec<&IdedExpr> = Vec::new();
    match &node.expr {
        Expr::Ident(name) if !names.contains(&name.as_str()) => {
            return Err(format!("`{name}` is not known; there are {}", names.join(", ")));
        }
        Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => parts.push(&select.operand),
        Expr::Call(call) => parts.extend(call.target.as_deref().into_iter().chain(&call.args)),
        Expr::List(list) => parts.extend(&list.elements),
        Expr::Map(_) | Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => {
            return Err("has a part that such conditions do not know".to_owned());
        }
    }
    parts.into_iter().try_for_each(|part| look(part, names, depth + 1))
}

/// Numbers without a fraction are whole.
fn cel_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(cel_value).collect())),
        Json::Object(map) => {
            let members: HashMap<String, Value> =
                map.iter().map(|(key, value)| (key.clone(), cel_value(value))).collect();
            Value::from(members)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_true_or_false_of_what_it_speaks_of() {
        let rule = Rule::compile("args.amount > 2000 || run.confidence < 0.7", &["args", "run"]);
        let rule = rule.unwrap();
        let holds = |amount: i64, confidence: f64| {
            let (args, run) = (json!({"amount": amount}), json!({"confidence": confidence}));
            rule.holds(&[("args", &args), ("run", &run)]).unwrap()
        };
        assert!(holds(2001, 0.9) && holds(1, 0.5));
        assert!(!holds(2000, 0.7));
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_type_cannot_be_told() {
        let rule = Rule::compile("args.amount > 2000", &["args"]).unwrap();
        assert!(rule.holds(&[("args", &json!({}))]).is_err());
        assert!(rule.holds(&[("args", &json!({"amount": "much"}))]).is_err());
    }

    #[test]
    fn unknown_names_and_loops_are_refused() {
        assert!(Rule::compile("secrets.x == 1", &["args"]).unwrap_err().contains("secrets"));
        assert!(Rule::compile("args.list.all(x, x > 1)", &["args"]).is_err());
        assert!(Rule::compile("args.", &["args"]).is_err());
    }
}
