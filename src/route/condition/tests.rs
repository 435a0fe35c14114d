//! Conditions as operators write them, and as nobody should.

use std::cell::RefCell;

use proptest::prelude::{ProptestConfig, prop, proptest};

use super::*;

const CONTRACT: &str = r#"request.headers["x-tier"] == "gold" && request.tokens < 4000"#;

fn facts<'a>() -> Facts<'a> {
    Facts {
        model: "gpt-5",
        surface: "chat",
        stream: true,
        tools: 3,
        max_tokens: 500,
        tokens: &|| 1200,
        header: &|name| (name == "x-tier").then_some("gold"),
        tag: &|name| (name == "team").then_some("search"),
        task: &|| Some("coding"),
        key: "laptop",
        team: "search",
        budget_left: 0.25,
        // A Tuesday, 2025-11-18, 14:30.
        unix: 1_763_476_200,
        ..sample()
    }
}

fn holds(source: &str) -> bool {
    Condition::compile(source).unwrap().holds(&facts()).unwrap()
}

fn refusal(source: &str) -> String {
    Condition::compile(source).unwrap_err()
}

#[test]
fn the_example_of_the_contract_holds_for_gold_and_short_and_for_nobody_else() {
    let condition = Condition::compile(CONTRACT).unwrap();
    assert_eq!(condition.holds(&facts()), Ok(true));
    assert_eq!(condition.holds(&Facts { tokens: &|| 4000, ..facts() }), Ok(false));
    assert_eq!(condition.holds(&Facts { header: &|_| None, ..facts() }), Ok(false));
}

#[test]
fn every_name_can_be_asked() {
    for source in [
        r#"request.model == "gpt-5" && request.model.startsWith("gpt-")"#,
        r#"request.headers["X-Tier"] == "gold" && request.headers["x-other"] == """#,
        r#""x-tier" in request.headers && !("x-other" in request.headers)"#,
        "request.tokens == 1200 && request.tokens < 1200.5 && request.max_tokens == 500",
        "request.stream && request.tools > 2 && !request.images",
        r#"request.surface in ["chat", "messages"]"#,
        r#"key.name == "laptop" && key.team == "search""#,
        r#"tags["team"] == "search" && tags.team == key.team && tags["a"] != "b""#,
        "has(tags.team) && !has(tags.other) && !has(request.headers.authorization)",
        r#"task == "coding" ? budget.left < 0.5 : false"#,
        "budget.left < 1 && budget.left > 0",
        "time.hour == 14 && time.weekday == 1 && time.unix > 1763000000",
        "size(request.model) == 5 && int(\"7\") + 1 == 8",
    ] {
        assert!(holds(source), "{source}");
    }
}

#[test]
fn only_what_is_mentioned_is_looked_up() {
    let asked = RefCell::new(Vec::new());
    let header = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        None
    };
    let never = || -> u64 { panic!("nobody asked for the tokens") };
    let facts = Facts { header: &header, tokens: &never, ..sample() };
    let source = r#"request.headers["a"] == "1" || request.headers["A"] == "2" || request.stream"#;
    assert_eq!(Condition::compile(source).unwrap().holds(&facts), Ok(false));
    assert_eq!(*asked.borrow(), ["a"]);
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    assert_eq!(refusal("request.token < 5"), "knows no `request.token`; is it `request.tokens`?");
    assert_eq!(
        refusal("request.model.x == ''"),
        "knows no `request.model.x`; is it `request.model`?"
    );
    assert_eq!(refusal("zzz"), "knows no `zzz`");
    assert!(refusal("request.header[\"a\"] == \"\"").contains("is it `request.headers`?"));
    assert!(refusal("tags == {}").contains("`tags[\"…\"]`"));
    assert!(refusal("tags[request.model] == \"\"").contains("stands in quotes"));
    assert!(refusal("has(request.model)").contains("`has` is for"));
}

#[test]
fn what_could_never_be_evaluated_is_refused_at_the_start() {
    for source in [
        "",
        "request.tokens <",
        "request.tokens",
        "request.tokens < \"4000\"",
        "false && request.tokens < \"4000\"",
        "request.stream || request.model",
        "request.model.startswith(\"gpt\") && request.tokens > 5",
        "nonsense(1)",
        "request.stream ? request.model : false",
        "request.model.matches(\"gpt.*\")",
        "Thing{a: 1} == 1",
    ] {
        assert!(Condition::compile(source).is_err(), "{source}");
    }
}

#[test]
fn nothing_loops() {
    for source in [
        "[1, 2].all(x, x > 0)",
        "[1, 2].exists(x, [3].exists_one(y, x == y))",
        "[1].map(x, x) == [1]",
        "[1].filter(x, true) == [1]",
    ] {
        let refusal = refusal(source);
        assert!(refusal.contains("loops"), "{source}: {refusal}");
    }
}

#[test]
fn an_error_that_depends_on_the_call_is_not_true_and_says_why() {
    let condition = Condition::compile("100 / request.tools > 5").unwrap();
    assert_eq!(condition.holds(&facts()), Ok(true));
    let error = condition.holds(&Facts { tools: 0, ..facts() }).unwrap_err();
    assert!(error.contains("ivision by zero"), "{error}");
    let number = Condition::compile("int(request.headers[\"x-tier\"]) > 1").unwrap();
    assert!(number.holds(&facts()).is_err());
}

#[test]
fn too_long_and_too_deep_is_refused_and_overflows_no_stack() {
    assert!(refusal(&format!("true{}", " ".repeat(LONGEST))).contains("longer"));
    let half = LONGEST / 2;
    for source in [
        format!("{}1", "1+".repeat(half - 1)),
        format!("{}1{}", "(".repeat(half - 1), ")".repeat(half - 1)),
        format!("{}{}", "[".repeat(half), "]".repeat(half)),
        format!("{}{}", "[".repeat(90), "]".repeat(90)),
        format!("{}1{}", "{1:".repeat(60), "}".repeat(60)),
        format!("{}1", "- ".repeat(half - 1)),
        format!("{}true", "! ".repeat(half - 2)),
        format!("tags{}", ".a".repeat(half - 2)),
        format!("tags{}", "[0]".repeat(1300)),
        format!("tags{}", ".f()".repeat(1000)),
        format!("{}1", "true?1:".repeat(500)),
        format!("{}''{}", "size(".repeat(600), ")".repeat(600)),
    ] {
        let _ = Condition::compile(&source);
    }
    assert!(refusal(&format!("{}1 == 1", "1 + ".repeat(20))).contains("nested"));
    let parentheses = format!("{}true{}", "(".repeat(15), ")".repeat(15));
    assert!(holds(&parentheses));
    assert!(holds(&format!("{}true", "request.stream && ".repeat(200))));
}

/// Words of the language, so that random text gets past the first word.
const WORDS: [&str; 44] = [
    "request.model",
    "request.tokens",
    "request.headers",
    "tags",
    "[\"a\"]",
    "budget.left",
    "1",
    "2.5",
    "0u",
    "-9223372036854775808",
    "\"gold\"",
    "b'a'",
    "true",
    "null",
    "[1]",
    "{'a': 1}",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "&&",
    "||",
    "==",
    "<",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "?",
    ":",
    ",",
    ".",
    " in ",
    "has(",
    "size(",
    ".all(x,",
    ".startsWith(",
    "\\",
    "é",
    "string(",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_expression_panics_or_hangs(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40)) {
        if let Ok(condition) = Condition::compile(&words.concat()) {
            let _ = condition.holds(&facts());
        }
    }

    #[test]
    fn no_text_panics_or_hangs(text: String) {
        let _ = Condition::compile(&text);
    }
}
