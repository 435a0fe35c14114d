//! Conditions on how calls have gone: `error_rate > 0.02 || p95_latency > 2 * baseline.p95_latency`.

use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::CelDouble;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::PrattParser;
use cel::{Context, Value};

use super::names::{DEEPEST, path, unknown};
use super::{ENVIRONMENT, LONGEST, check};

/// How the calls of one config have gone, by the names that conditions ask for. All are fractions,
/// so that they can be compared and reckoned with as they are.
pub const FIGURES: [&str; 8] = [
    "requests",
    "error_rate",
    "refused_rate",
    "blocked_rate",
    "p50_latency",
    "p95_latency",
    "p95_first_token",
    "cost_per_call",
];
/// Before the same of the config that it is compared with.
const BASELINE: &str = "baseline.";

/// In the order of `FIGURES`.
pub type Figures = [f64; FIGURES.len()];

/// One expression that is true or false of how calls have gone.
#[derive(Debug)]
pub struct Watch {
    expression: IdedExpr,
    source: String,
}

/// Of the config that is tried, and of the one beside it.
struct Known<'a>(&'a Figures, &'a Figures);

// === impl Watch ===

impl Watch {
    /// Refuses what could never be evaluated.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let parsed = PrattParser::default().parse(source);
        let mut expression = parsed.map_err(|errors| match errors.errors.first() {
            Some(first) => format!("{}, at column {}", first.msg, first.pos.1),
            None => "is not an expression".to_owned(),
        })?;
        bind(&mut expression, 0)?;
        let watch = Self { expression, source: source.to_owned() };
        let sample = [1.0; FIGURES.len()];
        let known = Known(&sample, &sample);
        check(&watch.expression, true, &context(&known))?;
        Ok(watch)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is true of `tried` beside `baseline`. An error, such as a division by zero, means
    /// that it cannot be told as yet.
    pub fn holds(&self, tried: &Figures, baseline: &Figures) -> bool {
        let known = Known(tried, baseline);
        matches!(Value::resolve(&self.expression, &context(&known)), Ok(Value::Bool(true)))
    }
}

fn context<'v>(known: &'v Known<'_>) -> Context<'v, 'v> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.set_variable_resolver(known);
    context
}

impl VariableResolver for Known<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let place: usize = variable.parse().ok()?;
        let figure = self.0.iter().chain(self.1).nth(place)?;
        Some(CowVal::owned(CelDouble::from(*figure)))
    }
}

/// Puts numbers in the place of names, and fractions in that of whole numbers.
fn bind(node: &mut IdedExpr, depth: u32) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("is nested more than {DEEPEST} deep"));
    }
    if let Some(name) = path(&node.expr) {
        node.expr = Expr::Ident(place(&name)?.to_string());
        return Ok(());
    }
    let mut bind = |node: &mut IdedExpr| bind(node, depth + 1);
    match &mut node.expr {
        Expr::Literal(literal) => {
            if let LiteralValue::Int(number) = literal {
                let digits = number.inner().to_string();
                // Every whole number is spelled as some fraction.
                let fraction = digits.parse().unwrap_or(f64::NAN);
                *literal = LiteralValue::Double(CelDouble::from(fraction));
            }
            Ok(())
        }
        Expr::Call(call) => {
            let target = call.target.as_deref_mut();
            target.into_iter().chain(&mut call.args).try_for_each(bind)
        }
        Expr::List(list) => list.elements.iter_mut().try_for_each(bind),
        Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => {
                [&mut entry.key, &mut entry.value].into_iter().try_for_each(&mut bind)
            }
            EntryExpr::StructField(field) => bind(&mut field.value),
        }),
        Expr::Ident(_)
        | Expr::Select(_)
        | Expr::Comprehension(_)
        | Expr::Struct(_)
        | Expr::Unspecified => Err("has a part that such conditions do not know".to_owned()),
    }
}

fn place(name: &str) -> Result<usize, String> {
    let (plain, behind) = match name.strip_prefix(BASELINE) {
        Some(plain) => (plain, FIGURES.len()),
        None => (name, 0),
    };
    let found = FIGURES.iter().position(|known| *known == plain);
    found.map(|place| place + behind).ok_or_else(|| unknown(plain, FIGURES.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Figures = [100.0, 0.01, 0.0, 0.0, 0.5, 1.0, 0.2, 0.001];
    const BAD: Figures = [100.0, 0.03, 0.0, 0.0, 0.5, 2.5, 0.2, 0.004];

    fn holds(source: &str) -> [bool; 2] {
        let watch = Watch::compile(source).unwrap();
        [watch.holds(&GOOD, &GOOD), watch.holds(&BAD, &GOOD)]
    }

    #[test]
    fn a_condition_tells_bad_figures_from_good_ones() {
        for source in [
            "error_rate > 0.02",
            "p95_latency > 2 * baseline.p95_latency",
            "requests >= 50 && (p95_latency > 2 || p95_first_token > 1)",
            "cost_per_call / baseline.cost_per_call > 1.5",
        ] {
            assert_eq!(holds(source), [false, true], "{source}");
        }
        let unknown = Watch::compile("error_rate / refused_rate > 1").unwrap();
        assert!(!unknown.holds(&[0.0; 8], &[0.0; 8]));
    }

    #[test]
    fn what_could_never_be_told_is_refused() {
        for (source, complaint) in [
            ("errorrate > 0.02", "is it `error_rate`?"),
            ("baseline.eror_rate > 1", "is it `error_rate`?"),
            ("error_rate", "true or false"),
            ("error_rate > \"a\"", ""),
            ("error_rate >", ""),
            ("[1].all(x, x > 1)", "do not know"),
        ] {
            let message = Watch::compile(source).unwrap_err();
            assert!(message.contains(complaint), "{source}: {message}");
        }
    }
}
