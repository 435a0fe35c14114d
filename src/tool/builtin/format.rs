//! Turns tables into other spellings: JSON, CSV and Markdown.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::text;

const MOST_COLUMNS: usize = 1000;

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["text", "from", "to"],
        "additionalProperties": false,
        "properties": {
            "text": {"type": "string", "maxLength": 1_000_000},
            "from": {"enum": ["json", "csv"]},
            "to": {"enum": ["json", "csv", "markdown"]},
        },
    })
}

pub(super) fn run(args: &Value) -> Result<Value, String> {
    let written = text(args, "text");
    let value = if text(args, "from") == "csv" {
        objects(read_csv(written)?)?
    } else {
        serde_json::from_str(written).map_err(|error| format!("the text is not JSON: {error}"))?
    };
    let result = match text(args, "to") {
        "json" => serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?,
        "csv" => write_csv(&table(&value)?),
        _ => write_markdown(&table(&value)?),
    };
    Ok(json!({"result": result}))
}

/// A heading and its rows.
type Table = Vec<Vec<String>>;

/// RFC 4180, with any line ends.
fn read_csv(text: &str) -> Result<Table, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut signs = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let (mut quoted, mut touched) = (false, false);
    while let Some(sign) = signs.next() {
        match sign {
            '"' if quoted && signs.peek() == Some(&'"') => {
                signs.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => (quoted, touched) = (true, true),
            ',' if !quoted => {
                row.push(std::mem::take(&mut cell));
                touched = true;
            }
            '\r' if !quoted && signs.peek() == Some(&'\n') => {}
            '\n' | '\r' if !quoted => {
                if touched || !cell.is_empty() {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                touched = false;
            }
            sign => cell.push(sign),
        }
    }
    if quoted {
        return Err("the text is not CSV: a quote is not closed".to_owned());
    }
    if touched || !cell.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    Ok(rows)
}

/// One object a row, by the names in the first.
fn objects(table: Table) -> Result<Value, String> {
    let mut rows = table.into_iter();
    let heading = distinct(&rows.next().unwrap_or_default())?;
    let object = |(number, row): (usize, Vec<String>)| {
        if row.iter().skip(heading.len()).any(|cell| !cell.is_empty()) {
            let number = number + 2;
            return Err(format!("row {number} has more cells than the heading has names"));
        }
        let cells = row.into_iter().map(Value::from).chain(std::iter::repeat(Value::Null));
        Ok(Value::Object(heading.iter().cloned().zip(cells).collect::<Map<_, _>>()))
    };
    rows.enumerate().map(object).collect()
}

/// Of names that come twice the second is `name_2`.
fn distinct(names: &[String]) -> Result<Vec<String>, String> {
    if names.len() > MOST_COLUMNS {
        return Err(format!("the table has more than {MOST_COLUMNS} columns"));
    }
    let mut known: Vec<String> = Vec::new();
    for name in names {
        let (mut own, mut times) = (name.clone(), 1);
        while known.contains(&own) || (times > 1 && names.contains(&own)) {
            times += 1;
            own = format!("{name}_{times}");
        }
        known.push(own);
    }
    Ok(known)
}

/// A list of objects has the names of all of them as its heading, a list of lists its first.
fn table(value: &Value) -> Result<Table, String> {
    let one = [value.clone()];
    let rows: &[Value] = match value {
        Value::Array(rows) => rows,
        Value::Object(_) => &one,
        _ => return Err("only a list or an object is a table".to_owned()),
    };
    if rows.iter().all(Value::is_array) {
        let cells = |row: &Value| row.as_array().into_iter().flatten().map(cell).collect();
        return Ok(rows.iter().map(cells).collect());
    }
    let mut heading: Vec<&String> = Vec::new();
    for row in rows {
        let row = row.as_object().ok_or("rows must all be objects, or all be lists")?;
        for name in row.keys() {
            if !heading.contains(&name) {
                heading.push(name);
            }
        }
        if heading.len() > MOST_COLUMNS {
            return Err(format!("the table has more than {MOST_COLUMNS} columns"));
        }
    }
    let cells = |row: &Value| heading.iter().map(|name| cell(&row[name.as_str()])).collect();
    let rows: Table = rows.iter().map(cells).collect();
    Ok(std::iter::once(heading.iter().map(ToString::to_string).collect()).chain(rows).collect())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn write_csv(table: &Table) -> String {
    let cell = |text: &String| {
        // Spreadsheets take what begins so for a formula; a number may.
        let is_formula =
            text.starts_with(['=', '+', '-', '@', '\t']) && text.parse::<f64>().is_err();
        let text = if is_formula { format!("'{text}") } else { text.clone() };
        if text.contains(['"', ',', '\n', '\r']) || text.trim() != text {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",");
    table.iter().map(line).fold(String::new(), |text, line| text + &line + "\r\n")
}

fn write_markdown(table: &Table) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        let empty = String::new();
        for column in 0..columns {
            let cell = row.get(column).unwrap_or(&empty).replace('\\', "\\\\").replace('|', "\\|");
            let cell = cell.replace("\r\n", "<br>").replace(['\n', '\r'], "<br>");
            let _ = write!(text, "| {cell} ");
        }
        text.push_str("|\n");
        if number == 0 {
            text.push_str(&"| --- ".repeat(columns));
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(written: &str, from: &str, to: &str) -> Result<String, String> {
        let result = run(&json!({"text": written, "from": from, "to": to}))?;
        Ok(result["result"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_table_is_spelled_in_three_ways() {
        let rows = r#"[{"name":"Ann","note":"a, \"b\""},{"name":"Bob","age":7}]"#;
        assert_eq!(
            turned(rows, "json", "csv").unwrap(),
            "name,note,age\r\nAnn,\"a, \"\"b\"\"\",\r\nBob,,7\r\n"
        );
        assert_eq!(
            turned(rows, "json", "markdown").unwrap(),
            "| name | note | age |\n| --- | --- | --- |\n| Ann | a, \"b\" |  |\n| Bob |  | 7 |\n"
        );
        let back = turned("name,note\r\nAnn,\"a, \"\"b\"\"\nc\"\n\nBob,", "csv", "json").unwrap();
        let back: Value = serde_json::from_str(&back).unwrap();
        assert_eq!(
            back,
            json!([{"name": "Ann", "note": "a, \"b\"\nc"}, {"name": "Bob", "note": ""}])
        );
    }

    #[test]
    fn no_cell_of_a_table_is_lost() {
        let read = |text: &str| {
            let json = turned(text, "csv", "json")?;
            serde_json::from_str::<Value>(&json).map_err(|error| error.to_string())
        };
        let told = read("a,a,a_2,a\n1,2,3,4\n5,\n").unwrap();
        let first = json!({"a": "1", "a_3": "2", "a_2": "3", "a_4": "4"});
        let second = json!({"a": "5", "a_3": "", "a_2": null, "a_4": null});
        assert_eq!(told, json!([first, second]));
        assert!(read("a\n1\n2,3").unwrap_err().contains("row 3"));
        assert_eq!(read("a\n1,\n").unwrap(), json!([{"a": "1"}]));
    }

    #[test]
    fn cells_cannot_break_out_of_their_table() {
        assert!(
            turned(r#"[{"a":"x | y\nz"}]"#, "json", "markdown").unwrap().contains("x \\| y<br>z")
        );
        assert!(
            turned(r#"[{"a":"=cmd()"},{"a":-5}]"#, "json", "csv")
                .unwrap()
                .contains("'=cmd()\r\n-5")
        );
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for (text, from) in [("{", "json"), ("3", "json"), ("[1,{}]", "json"), ("a,\"b", "csv")] {
            assert!(turned(text, from, "csv").is_err(), "{text}");
        }
        assert_eq!(turned("", "csv", "json").unwrap(), "[]");
        assert_eq!(turned("[[1,2],[3]]", "json", "csv").unwrap(), "1,2\r\n3\r\n");
    }
}
