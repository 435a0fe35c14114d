//! Functions of SQLite's on text, each in one pass: a file stops a statement only between its
//! steps, and SQLite's own search for every beginning anew, which takes minutes in one step where
//! text and pattern are long and alike.
//!
//! Source: <https://sqlite.org/lang_corefunc.html>.

use std::collections::HashSet;

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Result};

use super::sqlite::LONGEST_VALUE;

/// What the statements of one connection mean by these names from now on.
pub(super) fn replace_functions(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("instr", 2, flags, |it| Ok(instr(it)))?;
    connection.create_scalar_function("replace", 3, flags, replace)?;
    for (name, ends) in [("trim", Ends::Both), ("ltrim", Ends::Left), ("rtrim", Ends::Right)] {
        connection.create_scalar_function(name, 2, flags, move |it| Ok(trim(it, ends)))?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Both,
    Left,
    Right,
}

/// Where the second stands in the first: in characters from 1, in bytes where both are blobs.
fn instr(context: &Context<'_>) -> Option<i64> {
    let (text, sought) = (context.get_raw(0), context.get_raw(1));
    if let (ValueRef::Blob(text), ValueRef::Blob(sought)) = (text, sought) {
        return Some(memmem::find(text, sought).map_or(0, |at| number(at + 1)));
    }
    let (text, sought) = (bytes(text)?, bytes(sought)?);
    let found = memmem::find(&text, &sought);
    let before = |at: usize| text[..at].iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    Some(found.map_or(0, |at| number(before(at) + 1)))
}

fn replace(context: &Context<'_>) -> Result<ToSqlOutput<'static>> {
    let argument = |at| bytes(context.get_raw(at));
    let (Some(text), Some(sought), Some(other)) = (argument(0), argument(1), argument(2)) else {
        return Ok(ToSqlOutput::Owned(Value::Null));
    };
    if sought.is_empty() {
        return Ok(ToSqlOutput::Owned(as_text(&text)));
    }
    let (mut replaced, mut from) = (Vec::new(), 0);
    for at in memmem::find_iter(&text, &sought) {
        replaced.extend_from_slice(&text[from..at]);
        replaced.extend_from_slice(&other);
        from = at + sought.len();
        if replaced.len() > LONGEST_VALUE {
            return Err(rusqlite::Error::UserFunctionError("string or blob too big".into()));
        }
    }
    replaced.extend_from_slice(&text[from..]);
    Ok(ToSqlOutput::Owned(as_text(&replaced)))
}

/// Without the characters of the second at its ends.
fn trim(context: &Context<'_>, ends: Ends) -> Option<String> {
    let (text, unwanted) = (bytes(context.get_raw(0))?, bytes(context.get_raw(1))?);
    let (text, unwanted) = (String::from_utf8_lossy(&text), String::from_utf8_lossy(&unwanted));
    let unwanted: HashSet<char> = unwanted.chars().collect();
    let is_unwanted = |letter: char| unwanted.contains(&letter);
    let mut kept: &str = &text;
    if ends != Ends::Right {
        kept = kept.trim_start_matches(is_unwanted);
    }
    if ends != Ends::Left {
        kept = kept.trim_end_matches(is_unwanted);
    }
    Some(kept.to_owned())
}

/// A value as text, or nothing for NULL.
fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(real(number).into_bytes()),
    }
}

/// As SQLite writes it, never without a point. Of a fraction that 17 digits do not tell exactly,
/// SQLite's last digit may be another one, or one more.
fn real(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    let written = format!("{number:e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    match exponent.parse::<i32>() {
        Ok(-4..=16) => {
            let plain = number.to_string();
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
        Ok(exponent) => {
            let point = if digits.contains('.') { "" } else { ".0" };
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}{point}e{sign}{:02}", exponent.unsigned_abs())
        }
        Err(_) => written,
    }
}

fn as_text(bytes: &[u8]) -> Value {
    Value::Text(String::from_utf8_lossy(bytes).into_owned())
}

fn number(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite's own functions give, and what ours give.
    fn both(expression: &str) -> (Value, Value) {
        let own = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        replace_functions(&ours).unwrap();
        let ask = |connection: &Connection| {
            connection.query_row(&format!("SELECT {expression}"), (), |row| row.get(0)).unwrap()
        };
        (ask(&own), ask(&ours))
    }

    #[test]
    fn they_give_what_sqlites_own_give() {
        let values = [
            "NULL",
            "''",
            "'a'",
            "'aaab'",
            "'äöü€😀'",
            "'€'",
            "'ü€'",
            "x'616161'",
            "x'61'",
            "x''",
            "12",
            "-7",
            "0.1 + 0.2",
            "12.5",
            "3.0",
            "1e14",
            "1e17",
            "1e18",
            "4.35",
            "1e23",
            "1e15",
            "1e16",
            "123456789012345678.0",
            "-1e-4",
            "1e-5",
            "1.5e300",
            "9e999",
            "-9e999",
            "1e100",
        ];
        let same = |expression: String| {
            let (own, ours) = both(&expression);
            assert_eq!(own, ours, "{expression}");
        };
        for (one, two) in values.iter().flat_map(|one| values.map(|two| (one, two))) {
            for function in ["instr", "trim", "ltrim", "rtrim"] {
                same(format!("{function}({one}, {two})"));
            }
            same(format!("replace({one}, {two}, 'x€')"));
            same(format!("replace('1234', '2', {two})"));
        }
    }
}
