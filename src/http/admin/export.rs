//! The ledger as a file: pages that the client pulls, as CSV or as JSON lines.

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::Value;

use super::guard::reach;
use super::ledger::{catch_up, line, read, shown, sum_names};
use super::query::Format;
use super::{AdminApi, Answer, Asked};
use crate::error::Error;
use crate::gateway::Body;
use crate::net::BoxError;
use crate::store::{Column, Export, Filter, Reach, Store};

/// The columns of a file of calls.
const CALL: [&str; 29] = [
    "id",
    "at",
    "surface",
    "stream",
    "key",
    "team",
    "user",
    "org",
    "route",
    "agent",
    "task",
    "provider",
    "model",
    "outcome",
    "status",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "counted_tokens",
    "usage_source",
    "cost_usd",
    "duration_ms",
    "first_token_ms",
    "generation",
    "cache",
    "purpose",
    "tags",
];

/// What is pulled, a page at a time.
enum Pages {
    Calls(Export),
    Usage(Sums),
}

struct Sums {
    store: Store,
    reach: Reach,
    groups: Vec<Column>,
    filter: Filter,
    /// The groups of the last line of the page before.
    after: Option<Vec<String>>,
    has_ended: bool,
}

/// How rows are written, with the columns of those of CSV.
struct Spelling {
    format: Format,
    columns: Vec<&'static str>,
}

pub(super) async fn calls(api: AdminApi, asked: Asked) -> Answer {
    let (format, filter) = (asked.query.format()?, asked.query.filter()?);
    let store = api.gateway.store();
    catch_up(store).await;
    let pages = Pages::Calls(store.export(reach(&asked.by), filter));
    file("calls", pages, Spelling { format, columns: CALL.into() }).await
}

pub(super) async fn usage(api: AdminApi, asked: Asked) -> Answer {
    let (format, filter) = (asked.query.format()?, asked.query.filter()?);
    let groups = asked.query.groups()?;
    let store = api.gateway.store();
    catch_up(store).await;
    let names = groups.iter().map(|column| column.name());
    let columns = names.chain(sum_names()).collect();
    let (store, reach) = (store.clone(), reach(&asked.by));
    let pages = Pages::Usage(Sums { store, reach, groups, filter, after: None, has_ended: false });
    file("usage", pages, Spelling { format, columns }).await
}

/// The first page is read before anything is said, so that a store that is away is an answer.
async fn file(name: &str, mut pages: Pages, spelling: Spelling) -> Answer {
    let mut first = match spelling.format {
        Format::Csv => row(spelling.columns.iter().map(|name| (*name).to_owned())),
        Format::Lines => String::new(),
    };
    let rows = read(pages.next()).await?;
    let is_empty = rows.is_none();
    first.push_str(&spelling.write(&rows.unwrap_or_default()));
    let (media, ending) = match spelling.format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::Lines => ("application/jsonl", "jsonl"),
    };
    let rest = (!is_empty).then_some((pages, spelling));
    let mut response = Response::new(Body::pulled(rows_of(first, rest)));
    let disposition = format!("attachment; filename=\"{name}.{ending}\"");
    let disposition = HeaderValue::from_str(&disposition);
    let disposition = disposition.map_err(|error| Error::invalid(error.to_string()))?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// A page is asked for when the one before it was sent. One that fails breaks the answer off, so
/// that nobody takes a part for the whole.
fn rows_of(
    first: String,
    rest: Option<(Pages, Spelling)>,
) -> impl Stream<Item = Result<Bytes, BoxError>> {
    stream::try_unfold((Some(first), rest), async |(first, rest)| {
        if let Some(first) = first {
            return Ok(Some((Bytes::from(first), (None, rest))));
        }
        let Some((mut pages, spelling)) = rest else { return Ok(None) };
        let rows = pages.next().await.map_err(BoxError::from)?;
        Ok(rows.map(|rows| {
            let text = Bytes::from(spelling.write(&rows));
            (text, (None, Some((pages, spelling))))
        }))
    })
}

// === impl Pages, Sums ===

impl Pages {
    async fn next(&mut self) -> Result<Option<Vec<Value>>, crate::store::Failure> {
        match self {
            Self::Calls(export) => {
                let rows = export.next().await?;
                Ok(rows.map(|rows| rows.iter().map(shown).collect()))
            }
            Self::Usage(sums) => sums.next().await,
        }
    }
}

impl Sums {
    async fn next(&mut self) -> Result<Option<Vec<Value>>, crate::store::Failure> {
        if self.has_ended {
            return Ok(None);
        }
        let which = (&self.filter, self.after.as_deref());
        let (rows, next) = self.store.usage_page(&self.reach, &self.groups, which).await?;
        self.has_ended = next.is_none();
        self.after = next;
        Ok(Some(rows.iter().map(|row| line(&self.groups, row)).collect()))
    }
}

// === impl Spelling ===

impl Spelling {
    fn write(&self, rows: &[Value]) -> String {
        let text = |one: &Value| match self.format {
            Format::Csv => row(self.columns.iter().map(|name| cell(&one[*name]))),
            Format::Lines => format!("{one}\n"),
        };
        rows.iter().map(text).collect()
    }
}

/// One line of CSV (RFC 4180). What a spreadsheet would take for a formula is made plain text.
fn row(cells: impl Iterator<Item = String>) -> String {
    let mut line = String::new();
    for (at, mut cell) in cells.enumerate() {
        if at > 0 {
            line.push(',');
        }
        if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            cell.insert(0, '\'');
        }
        if cell.contains([',', '"', '\r', '\n']) {
            cell = format!("\"{}\"", cell.replace('"', "\"\""));
        }
        line.push_str(&cell);
    }
    line + "\r\n"
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // Without an exponent, which not everybody reads.
        Value::Number(number) => match number.as_f64() {
            Some(fraction) if number.is_f64() => fraction.to_string(),
            _ => number.to_string(),
        },
        Value::Object(members) if members.is_empty() => String::new(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_quoted_where_they_must_and_are_no_formulas() {
        let values = [
            json!("=HYPERLINK(\"x\")"),
            json!("+1"),
            json!("-1"),
            json!("@a"),
            json!("a,b"),
            json!("say \"x\"\r\n"),
            json!(null),
            json!(0.000_000_1),
            json!(12),
            json!(true),
            json!({}),
            json!({"a": "b"}),
        ];
        let line = row(values.iter().map(cell));
        let expected = "\"'=HYPERLINK(\"\"x\"\")\",'+1,'-1,'@a,\"a,b\",\"say \"\"x\"\"\r\n\",,\
            0.0000001,12,true,,\"{\"\"a\"\":\"\"b\"\"}\"\r\n";
        assert_eq!(line, expected);
    }
}
