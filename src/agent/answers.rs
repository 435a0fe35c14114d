//! Whether what a person answers is what a run has asked for, looked at before the run hears of it.

use serde_json::{Value, json};

use super::ask::fits_schema;
use super::begin::halted;
use super::run::{Run, Stage};
use super::staff::Staff;
use crate::error::{Error, Kind};
use crate::store::runs::RunRow;
use crate::tool;

impl Staff {
    /// Fails with what is wrong; the run goes on waiting then. `request`: which question is
    /// answered; the only one, if it is not said.
    pub(super) async fn check_answer(
        &self,
        row: &RunRow,
        request: Option<&str>,
        values: &Value,
    ) -> Result<(), Error> {
        let run = self.load(row).await.map_err(halted)?.run;
        fits(&run, request, values)
    }
}

fn fits(run: &Run, request: Option<&str>, values: &Value) -> Result<(), Error> {
    let asked = run.calls.iter().find_map(|call| match &call.stage {
        Stage::Asking { request: own, schema, fills, .. }
            if request.is_none_or(|wanted| wanted == own) =>
        {
            Some((schema.as_ref(), fills.as_slice()))
        }
        _ => None,
    });
    match asked {
        Some((Some(schema), fills)) => fits_form(schema, fills, values),
        Some((None, _)) => Ok(()),
        None if run.escalated.is_some() => fits_output(run, values),
        None => {
            let which = request.map_or_else(String::new, |request| format!(" `{request}`"));
            let message = format!("There is no open question{which} that this could answer.");
            Err(Error::new(Kind::InvalidTransition, message))
        }
    }
}

/// An answer to a question that came with a form.
fn fits_form(schema: &Value, fills: &[String], values: &Value) -> Result<(), Error> {
    // Nothing is the word of whoever does not want to answer; what a call lacks is needed.
    if (values.is_null() && fills.is_empty()) || !tool::is_schema(schema) {
        return Ok(());
    }
    let whole = match (values, fills) {
        (Value::Object(_), _) | (_, []) => values.clone(),
        // Where one thing is missing, the answer is that.
        (value, [only]) => json!({only: value}),
        _ => values.clone(),
    };
    let whole = tool::mcp::filled(whole, schema);
    tool::check_value(schema, &whole).map_err(|wrong| unfit("`values`", &wrong))
}

/// What a person says in the place of an agent that has given up.
fn fits_output(run: &Run, values: &Value) -> Result<(), Error> {
    let answer = values.get("answer").and_then(Value::as_str);
    let (Some(answer), Some(schema)) = (answer, &run.definition.output_schema) else {
        return Ok(());
    };
    fits_schema(answer, schema).map_err(|wrong| unfit("`values.answer`", &wrong))
}

fn unfit(what: &str, wrong: &str) -> Error {
    let message = format!("{what} is not what was asked for: {wrong}. The run still waits.");
    Error::new(Kind::Unprocessable, message)
}
