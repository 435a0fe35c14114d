//! Conditions on a call, written in CEL: `tags["team"] == "search" && request.tokens < 4000`.

mod figures;
mod names;
mod rule;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
// Hidden from the crate's pages as its newer parser. The other one needs megabytes of stack for a
// dozen of parentheses when it is not optimised, and reads ten times as slowly.
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value};

pub use figures::{FIGURES, Figures, Watch};
use names::{Fact, bind};
pub use rule::Rule;

/// In bytes.
const LONGEST: usize = 4096;

/// The functions of the standard: shared, since they are the same for all.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One expression that is true or false of a call. It contains no loops, so that its evaluation
/// takes no more steps than it has parts.
#[derive(Debug)]
pub struct Condition {
    expression: IdedExpr,
    /// What it mentions, and so what has to be known.
    facts: Vec<Fact>,
}

/// What can be asked of a call. Each is looked at only if the condition mentions it.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub model: &'a str,
    pub surface: &'a str,
    pub stream: bool,
    pub images: bool,
    pub tools: u64,
    /// 0 if the client set none.
    pub max_tokens: u64,
    pub tokens: &'a dyn Fn() -> u64,
    /// Asked by lower-case names.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub tag: &'a dyn Fn(&str) -> Option<&'a str>,
    pub task: &'a dyn Fn() -> Option<&'a str>,
    pub key: &'a str,
    pub team: &'a str,
    /// From 1, nothing spent, to 0; 1 without a budget.
    pub budget_left: f64,
    /// Seconds since 1970, UTC.
    pub unix: u64,
}

#[derive(Clone, Copy, Debug)]
enum Known<'a> {
    Text(&'a str),
    Number(u64),
    Share(f64),
    Flag(bool),
}

/// The facts of one call, under the numbers by which the expression asks for them.
struct Answers<'a>(Vec<Known<'a>>);

// === impl Condition ===

impl Condition {
    /// Refuses what could never be evaluated: unknown names, loops, operands of the wrong type.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let parsed = PrattParser::default().parse(source);
        let mut expression = parsed.map_err(|errors| match errors.errors.first() {
            Some(first) => format!("{}, at column {}", first.msg, first.pos.1),
            None => "is not an expression".to_owned(),
        })?;
        let facts = bind(&mut expression)?;
        let condition = Self { expression, facts };
        let answers = condition.answers(&sample());
        check(&condition.expression, true, &context(&answers))?;
        Ok(condition)
    }

    /// Whether it is true of a call. An error means no, and says why for the log.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let answers = self.answers(facts);
        match Value::resolve(&self.expression, &context(&answers)) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("is neither true nor false but {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn answers<'a>(&self, facts: &Facts<'a>) -> Answers<'a> {
        Answers(self.facts.iter().map(|fact| fact.answer(facts)).collect())
    }
}

fn context<'v>(answers: &'v Answers<'_>) -> Context<'v, 'v> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.set_variable_resolver(answers);
    context
}

/// A call as good as any, to see whether the types fit.
fn sample<'a>() -> Facts<'a> {
    Facts {
        model: "",
        surface: "",
        stream: false,
        images: false,
        tools: 0,
        max_tokens: 0,
        tokens: &|| 0,
        header: &|_| None,
        tag: &|_| None,
        task: &|| None,
        key: "",
        team: "",
        budget_left: 1.0,
        unix: 0,
    }
}

/// Evaluates each part that `&&`, `||`, `!` and `?:` may skip, since an error in one of these
/// would otherwise be seen only on the day when it counts.
fn check(node: &IdedExpr, yes_or_no: bool, context: &Context<'_, '_>) -> Result<(), String> {
    let logical = [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT];
    if let Expr::Call(call) = &node.expr {
        let operator = call.func_name.as_str();
        if let (operators::CONDITIONAL, [question, branches @ ..]) = (operator, &call.args[..]) {
            check(question, true, context)?;
            return branches.iter().try_for_each(|branch| check(branch, yes_or_no, context));
        }
        if logical.contains(&operator) {
            return call.args.iter().try_for_each(|operand| check(operand, true, context));
        }
    }
    match Value::resolve(node, context) {
        Ok(Value::Bool(_)) => Ok(()),
        Ok(other) if yes_or_no => Err(format!("has {other:?} where true or false belongs")),
        Err(
            error @ (ExecutionError::NoSuchOverload(_)
            | ExecutionError::UndeclaredReference(_)
            | ExecutionError::InvalidArgumentCount { .. }
            | ExecutionError::MissingArgumentOrTarget
            | ExecutionError::NotSupportedAsMethod { .. }
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::UnsupportedKeyType(_)
            | ExecutionError::UnsupportedIndex(..)
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::UnsupportedTargetType { .. }
            | ExecutionError::ValuesNotComparable(..)),
        ) => Err(error.to_string()),
        // Other errors depend on the values, as a division by zero does.
        _ => Ok(()),
    }
}

// === impl Answers ===

impl VariableResolver for Answers<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let place: usize = variable.parse().ok()?;
        Some(match *self.0.get(place)? {
            Known::Text(text) => CowVal::owned(CelString::from(text)),
            Known::Number(number) => {
                CowVal::owned(CelInt::from(i64::try_from(number).unwrap_or(i64::MAX)))
            }
            Known::Share(share) => CowVal::owned(CelDouble::from(share)),
            Known::Flag(flag) => CowVal::owned(CelBool::from(flag)),
        })
    }
}

#[cfg(test)]
mod tests;
