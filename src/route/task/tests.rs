//! The classifier keeps what it promises: the same answer for the same words, and a floor of truth.

use proptest::prelude::*;
use serde_json::Value;

use super::{Prompt, Task, Verdict, classify, parse};

/// What the tuning half reached, less two points.
const FLOOR: f64 = 0.977;

fn user(text: &str) -> Verdict {
    classify(&Prompt { user: text, ..Prompt::default() })
}

/// A line of the labelled prompts.
fn ask(line: &Value) -> Verdict {
    let features = &line["features"];
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    let given = |key: &str| features[key].as_bool().unwrap_or_default();
    classify(&Prompt {
        system: text("system"),
        user: text("prompt"),
        tools: features["tools"].as_u64().unwrap_or_default().try_into().unwrap(),
        tool_choice_forced: given("tool_choice_forced"),
        schema: given("schema"),
        images: given("images"),
        audio: given("audio"),
        files: given("files"),
        tokens: features["tokens"].as_u64().unwrap_or_default(),
        reasoning: given("reasoning"),
    })
}

#[test]
fn the_tuning_prompts_stay_as_well_understood_as_they_were() {
    let lines = include_str!("../../../tests/fixtures/tasks/tuning.jsonl").lines();
    let (mut right, mut all) = (0, 0);
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap();
        let label = parse(line["task"].as_str().unwrap()).unwrap();
        right += i32::from(ask(&line).task == label);
        all += 1;
    }
    assert!(f64::from(right) >= FLOOR * f64::from(all), "{right} of {all}");
}

#[test]
fn a_task_is_found_by_its_name_and_by_what_else_it_is_called() {
    for task in Task::ALL {
        assert_eq!(parse(task.name()), Ok(task));
    }
    for (name, task) in [
        ("summarization", Task::Summarisation),
        ("Summary", Task::Summarisation),
        ("creative-writing", Task::Creative),
        ("long", Task::Document),
        ("tool use", Task::Tools),
    ] {
        assert_eq!(parse(name), Ok(task), "{name}");
    }
}

#[test]
fn an_unknown_task_is_refused_with_the_nearest_name() {
    let unknown = parse("summarisaton").unwrap_err();
    assert_eq!(unknown.to_string(), "`summarisaton` is no task; the nearest is `summarisation`");
    assert_eq!(parse("kode").unwrap_err().nearest, "code");
}

#[test]
fn the_instruction_counts_wherever_it_stands_and_the_pasted_text_hardly() {
    let story = "The poem was about a function that would translate a label into code. ".repeat(80);
    for text in [format!("Summarize this:\n\n{story}"), format!("{story}\n\nSummarize this.")] {
        assert_eq!(user(&text).task, Task::Summarisation);
    }
}

#[test]
fn what_a_request_has_besides_words_is_heard() {
    let prompt = Prompt { user: "what is it?", ..Prompt::default() };
    assert_eq!(classify(&prompt).task, Task::Chat);
    assert_eq!(classify(&Prompt { images: true, ..prompt }).task, Task::Vision);
    assert_eq!(classify(&Prompt { files: true, tokens: 40_000, ..prompt }).task, Task::Document);
    let forced = Prompt { tools: 1, tool_choice_forced: true, ..prompt };
    assert_eq!(classify(&forced).task, Task::Tools);
}

#[test]
fn a_reason_never_repeats_what_the_user_said_of_himself() {
    let verdict = user("Übersetze ins Englische: Mein Passwort ist Hunderttausend");
    assert_eq!(verdict.task, Task::Translation);
    assert_eq!(verdict.reason, "lexical: übersetz");
}

#[test]
fn nothing_at_all_is_chat_and_not_sure_of_it() {
    let verdict = user("");
    assert_eq!(verdict.task, Task::Chat);
    assert!(verdict.score < 0.2, "{verdict:?}");
}

proptest! {
    #[test]
    fn any_text_gets_the_same_verdict_twice_and_a_score_within_bounds(
        system in ".{0,200}", text in "(?s).{0,6000}", tools in 0_usize..3, images: bool,
    ) {
        let prompt = Prompt { system: &system, user: &text, tools, images, ..Prompt::default() };
        let verdict = classify(&prompt);
        prop_assert!((0.0..=1.0).contains(&verdict.score), "{verdict:?}");
        prop_assert_eq!(classify(&prompt), verdict);
    }

    #[test]
    fn words_of_the_lexicon_in_any_order_do_no_harm(
        words in prop::collection::vec(
            prop::sample::select(vec!["übersetze", "İ", "\n\n", "```", "“", "„", ": ", "c++", "总结", "(a, b, c)", "’", "…", "\"", "（", "?"]),
            0..900,
        ),
    ) {
        let text = words.concat();
        prop_assert!((0.0..=1.0).contains(&user(&text).score));
    }
}
