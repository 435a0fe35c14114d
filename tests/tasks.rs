//! The task classifier can be tried from the command line, on anybody's own prompts.

use std::io::Write;
use std::process::{Command, Output};

const PROMPTS: &str = r#"{"prompt": "Translate into French: good morning", "task": "translation", "language": "en"}
{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]}], "task": "vision"}

{"prompt": "Schreibe ein Gedicht über den Herbst.", "task": "code", "language": "de"}
"#;

fn eval(lines: &str, arguments: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.args(["tasks", "eval"]).arg(file.path()).args(arguments).output().unwrap()
}

#[test]
fn prompts_of_ones_own_are_tried_and_mistakes_named_with_their_lines() {
    let output = eval(PROMPTS, &[]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.starts_with("accuracy 66.7 % (2 of 3)"), "{told}");
    assert!(told.contains("\ntranslation           1    100.0 %  100.0 %\n"), "{told}");
    assert!(told.contains("\nline 4: code, taken for creative ("), "{told}");
    assert!(told.contains("\nde                    1      0.0 %\n"), "{told}");
}

#[test]
fn fewer_right_than_asked_for_is_a_failure() {
    assert_eq!(eval(PROMPTS, &["--min-accuracy", "0.6"]).status.code(), Some(0));
    assert_eq!(eval(PROMPTS, &["--min-accuracy", "0.8"]).status.code(), Some(1));
}

#[test]
fn every_line_that_cannot_be_read_is_named() {
    let lines = "{\"prompt\": \"hi\", \"task\": \"chat\"}\n{\"prompt\": 7}\n\
                 {\"prompt\": \"hi\", \"task\": \"sumary\"}\n{\"task\": \"chat\"}\n";
    let output = eval(lines, &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains(":2: ") && told.contains(":4: neither `prompt` nor"), "{told}");
    assert!(told.contains(":3: `sumary` is no task; the nearest is `summarisation`"), "{told}");
}

#[test]
fn a_file_that_is_not_there_or_empty_is_told() {
    assert_eq!(eval("", &[]).status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    let output = command.args(["tasks", "eval", "nowhere.jsonl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
