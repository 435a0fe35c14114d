//! What must hold of every guard, whatever it looks for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Arguments, Blocked, Chain, Filter, Guards, Restorer, Vault, Verdict};
use crate::config::{Config, Stage};

const SOUND: &str = "[providers.demo]\nkind = \"demo\"\n[routes.fast]\ntargets = [\"demo/demo\"]\n";

fn guards(text: &str) -> Guards {
    let config = Config::parse(&format!("{SOUND}{text}"), Path::new("x.toml"), &["demo"]);
    Guards::build(&config.unwrap().guards).map_err(|problems| format!("{problems:?}")).unwrap()
}

/// The chain of all the guards in a config, in the order of their names.
fn chain(text: &str, stage: Stage) -> Chain {
    let guards = guards(text);
    let names: Vec<&str> = guards.0.keys().map(String::as_str).collect();
    guards.chain(&names, stage)
}

/// What came out, and what was said.
type Outcome = (Result<String, Blocked>, Vec<Verdict>);

fn in_pieces(chain: &Chain, pieces: &[&str]) -> Outcome {
    let mut scan = chain.scan(&Arc::default());
    let mut out = String::new();
    let fed = pieces.iter().try_for_each(|piece| scan.feed(piece, &mut out));
    let result = fed.and_then(|()| scan.finish(&mut out)).map(|()| out);
    (result, scan.into_verdicts())
}

fn whole(chain: &Chain, text: &str) -> Outcome {
    in_pieces(chain, &[text])
}

/// Cuts a text at every place that `cuts` says, as far as these are between characters.
fn cut<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a str> {
    let mut places: Vec<usize> =
        cuts.iter().map(|cut| text.floor_char_boundary(cut % (text.len() + 1))).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn each_character(text: &str) -> Vec<&str> {
    text.split("").filter(|piece| !piece.is_empty()).collect()
}

/// A verdict but for how much was looked at, which ends where the text was cut when it blocked.
fn gist(outcome: &Outcome) -> (Result<String, Blocked>, Vec<BTreeMap<String, u32>>) {
    let findings = outcome.1.iter().map(|verdict| verdict.findings.clone()).collect();
    (outcome.0.clone(), findings)
}

const EVERY_LOCAL: &[&str] = &[
    "[guards.a]\nkind = \"pattern\"\nwords = [\"Aurora\", \"projekt ägir\", \"機密\"]\nregex = ['\\bfoo\\d+\\b', 'a.*z', '(?m)^x+$']\nstage = [\"output\"]\naction = \"ACTION\"\n",
    "[guards.a]\nkind = \"pii\"\nstage = [\"output\"]\naction = \"ACTION\"\n",
    "[guards.a]\nkind = \"secrets\"\nstage = [\"output\"]\naction = \"ACTION\"\n",
    "[guards.a]\nkind = \"urls\"\nhosts = [\"example.org\", \"*.example.com\"]\nstage = [\"output\"]\naction = \"ACTION\"\n",
];
const EVERY_READER: &[&str] = &[
    "[guards.a]\nkind = \"length\"\nmax_chars = 60\nmax_tokens = 20\nstage = [\"output\"]\naction = \"ACTION\"\n",
    "[guards.a]\nkind = \"language\"\nallowed = [\"en\"]\nstage = [\"output\"]\naction = \"ACTION\"\n",
    "[guards.a]\nkind = \"schema\"\nschema = '{\"type\": \"object\"}'\nstage = [\"output\"]\naction = \"ACTION\"\n",
];

/// Pieces of what guards look for, of what looks like it, and of what lies between.
const MORSELS: &[&str] = &[
    "alice@example.org",
    "bob@",
    "@",
    ".",
    "..",
    " ",
    "\n",
    "4111 1111 1111 1111",
    "4111-1111",
    "1",
    "12",
    "079",
    "+49 30 901820",
    "(212) 555-0123",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST",
    "192.168.0.1",
    "10.0",
    "2001:db8::1",
    "::",
    "00:1A:2b:3c:4D:5e",
    "078-05-1120",
    "AB 12 34 56 C",
    "bsn: 111222333",
    "aurora",
    "AURORA",
    "projekt ",
    "ÄGIR",
    "機密",
    "文書",
    "foo",
    "foo7",
    "bar",
    "a",
    "z",
    "x",
    "xx\n",
    "https://evil.test/a?q=1",
    "http",
    "://",
    "www.",
    "example.org",
    "[t](",
    ")",
    "![i](//evil.test/p)",
    "](",
    "sk-ant-abcdefghijklmnopqrstu12345",
    "sk-",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "AKIA",
    "IOSFODNN7EXAMPLE",
    "password = hunter2!Xy9",
    "token:",
    "\"",
    "'",
    "eyJhbGciOiJIUzI1",
    ".eyJzdWIiOiIxMjM0NTY3",
    ".abcdefghijkl",
    "-----BEGIN RSA PRIVATE KEY-----\n",
    "MIIEabc+/=",
    "-----END RSA PRIVATE KEY-----",
    "é",
    "😀",
    "ß",
    "Das ist ein Satz in deutscher Sprache, der lang genug ist, um erkannt zu werden. ",
    "{\"a\": 1}",
    "[EMAIL_1]",
];

fn texts() -> impl Strategy<Value = String> {
    let morsel = prop_oneof![
        8 => prop::sample::select(MORSELS).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => "\\PC{0,4}",
    ];
    prop::collection::vec(morsel, 0..14).prop_map(|morsels| morsels.concat())
}

/// Chains take a while to make, so each is made once.
fn chains() -> &'static [Chain] {
    static CHAINS: std::sync::LazyLock<Vec<Chain>> = std::sync::LazyLock::new(|| {
        let of = |text: &&str, action: &str| chain(&text.replace("ACTION", action), Stage::Output);
        let both = EVERY_LOCAL
            .iter()
            .flat_map(|text| ["mask", "block", "log"].map(|action| of(text, action)));
        let readers =
            EVERY_READER.iter().flat_map(|text| ["block", "log"].map(|action| of(text, action)));
        let together = chain(
            "[guards.a]\nkind = \"secrets\"\nstage = [\"output\"]\naction = \"mask\"\n\
             [guards.b]\nkind = \"pii\"\nstage = [\"output\"]\naction = \"mask\"\n\
             [guards.c]\nkind = \"urls\"\nhosts = []\nstage = [\"output\"]\naction = \"mask\"\n\
             [guards.d]\nkind = \"pattern\"\nwords = [\"aurora\"]\nstage = [\"output\"]\naction = \"mask\"\n",
            Stage::Output,
        );
        both.chain(readers).chain([together]).collect()
    });
    &CHAINS
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_verdict_and_no_mask_depends_on_how_the_text_was_cut(
        text in texts(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        for chain in chains() {
            let expected = whole(chain, &text);
            let pieces = in_pieces(chain, &cut(&text, &cuts));
            prop_assert_eq!(gist(&pieces), gist(&expected));
            let letters = in_pieces(chain, &each_character(&text));
            prop_assert_eq!(gist(&letters), gist(&expected));
        }
    }

    #[test]
    fn what_was_masked_comes_back_however_it_was_cut(
        text in texts(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let chain = mask_input();
        let vault = Arc::new(Vault::default());
        vault.avoid(&text);
        let masked = chain.scan(&vault).whole(&text).unwrap();
        let mut restorer = Restorer::new(Arc::clone(&vault));
        let mut out = String::new();
        for piece in cut(&masked, &cuts) {
            restorer.feed(piece, &mut out).unwrap();
        }
        restorer.finish(&mut out).unwrap();
        prop_assert_eq!(out, text);
    }

    #[test]
    fn arguments_stay_json_and_say_the_same(
        strings in prop::collection::vec(texts(), 1..4),
        number in any::<i64>(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
        ascii in any::<bool>(),
    ) {
        let value = serde_json::json!({"number": number, "strings": strings, "key\n": {"deep": strings[0]}});
        let mut text = value.to_string();
        if ascii {
            text = escaped(&text);
        }
        let chain = mask_input();
        let vault = Arc::new(Vault::default());
        vault.avoid(&text);
        let mut masking = Arguments::new(chain.scan(&vault));
        let mut masked = String::new();
        for piece in cut(&text, &cuts) {
            masking.feed(piece, &mut masked).unwrap();
        }
        masking.finish(&mut masked).unwrap();
        let again = Arguments::new(chain.scan(&vault)).whole(&text).unwrap();
        prop_assert_eq!(&masked, &again);
        let read: serde_json::Value = serde_json::from_str(&masked).unwrap();
        for (said, string) in read["strings"].as_array().unwrap().iter().zip(&strings) {
            prop_assert_eq!(said.as_str().unwrap(), chain.scan(&vault).whole(string).unwrap());
        }
        let mut restoring = Arguments::new(Restorer::new(Arc::clone(&vault)));
        let restored: serde_json::Value = serde_json::from_str(&restoring.whole(&masked).unwrap()).unwrap();
        prop_assert_eq!(&restored["strings"], &value["strings"]);
        prop_assert_eq!(&restored["key\n"], &value["key\n"]);
    }

    #[test]
    fn arguments_that_are_no_json_pass_without_harm(text in texts(), cuts in prop::collection::vec(any::<usize>(), 0..4)) {
        let none = Chain::default();
        let mut scan = Arguments::new(none.scan(&Arc::default()));
        let mut out = String::new();
        for piece in cut(&text, &cuts) {
            scan.feed(piece, &mut out).unwrap();
        }
        scan.finish(&mut out).unwrap();
        prop_assert_eq!(out, Arguments::new(none.scan(&Arc::default())).whole(&text).unwrap());
    }
}

fn mask_input() -> &'static Chain {
    static CHAIN: std::sync::LazyLock<Chain> = std::sync::LazyLock::new(|| {
        let text = "[guards.a]\nkind = \"pii\"\nstage = [\"input\"]\naction = \"mask\"\n\
            [guards.b]\nkind = \"secrets\"\nstage = [\"input\"]\naction = \"mask\"\nrestore = true\n";
        chain(text, Stage::Input)
    });
    &CHAIN
}

/// The same JSON with everything beyond ASCII escaped.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[test]
fn text_beyond_any_match_is_decided_the_same_however_it_was_cut() {
    let regexes = "[guards.a]\nkind = \"pattern\"\nregex = ['q[a-zé]*k', 'b+']\nstage = [\"output\"]\naction = \"mask\"\n";
    let chain = chain(regexes, Stage::Output);
    let text = format!(
        "q{}k {} q{}b{}k qk",
        "aé".repeat(3000),
        "b".repeat(9000),
        "é".repeat(1500),
        "a".repeat(5000)
    );
    let expected = gist(&whole(&chain, &text));
    for size in [1, 7, 100, 4095, 4096, 4097, 10_000] {
        let cuts: Vec<usize> = (0..text.len()).step_by(size).collect();
        assert_eq!(gist(&in_pieces(&chain, &cut(&text, &cuts))), expected, "{size}");
    }
}

#[test]
fn only_what_could_still_be_found_is_held() {
    let chain = mask_input();
    let mut scan = chain.scan(&Arc::default());
    let mut left = |piece: &str| {
        let mut out = String::new();
        scan.feed(piece, &mut out).unwrap();
        out
    };
    assert_eq!(left("Write to "), "Write to ");
    assert_eq!(left("alice"), "", "it may be the beginning of an address");
    assert_eq!(left(" or"), "alice ");
    assert_eq!(left(" bob@example.org"), "or ");
    assert_eq!(left(" now. "), "[EMAIL_1] now. ");
    assert_eq!(left("Card 4111 1111 1111"), "Card ");
    assert_eq!(left(" 1111, thanks. "), "[CARD_1], thanks. ");
}

#[test]
fn nothing_of_a_match_leaves_before_it_blocks() {
    let chain = chain(
        "[guards.a]\nkind = \"secrets\"\nstage = [\"output\"]\naction = \"block\"\n",
        Stage::Output,
    );
    let mut scan = chain.scan(&Arc::default());
    let mut out = String::new();
    let text = "The key is gsk_0123456789abcdefghijABCDEFGHIJ0123456789 and so on.";
    let result = each_character(text).iter().try_for_each(|piece| scan.feed(piece, &mut out));
    assert_eq!(result.unwrap_err(), Blocked { guard: "a".into(), label: "groq_key".into() });
    assert_eq!(out, "The key is ");
    assert_eq!(scan.verdicts().next().unwrap().findings["groq_key"], 1);
}

#[test]
fn a_dry_run_and_a_log_let_everything_pass_at_once_and_say_what_was_there() {
    for action in ["action = \"log\"", "action = \"block\"\ndry_run = true"] {
        let text = format!("[guards.a]\nkind = \"pii\"\nstage = [\"output\"]\n{action}\n");
        let chain = chain(&text, Stage::Output);
        let mut scan = chain.scan(&Arc::default());
        let mut out = String::new();
        scan.feed("alice@exam", &mut out).unwrap();
        assert_eq!(out, "alice@exam");
        scan.feed("ple.org", &mut out).unwrap();
        scan.finish(&mut out).unwrap();
        let verdicts = scan.into_verdicts();
        assert_eq!((verdicts[0].findings["email"], verdicts[0].scanned_bytes), (1, 17));
        assert!(!verdicts[0].is_clean());
    }
}

#[test]
fn one_value_has_one_placeholder_and_one_that_was_never_given_stays() {
    let vault = Arc::new(Vault::default());
    let text = "a@b.org, c@d.org, a@b.org; I wrote [EMAIL_1] myself";
    vault.avoid(text);
    let masked = mask_input().scan(&vault).whole(text).unwrap();
    assert_eq!(masked, "[EMAIL_2], [EMAIL_3], [EMAIL_2]; I wrote [EMAIL_1] myself");
    let mut restorer = Restorer::new(Arc::clone(&vault));
    let answer = "To [EMAIL_3] and [EMAIL_9], [EMAIL_1] [[EMAIL_2]";
    assert_eq!(restorer.whole(answer).unwrap(), "To c@d.org and [EMAIL_9], [EMAIL_1] [a@b.org");
    assert_eq!(format!("{vault:?}"), "Vault(***)");
}

#[test]
fn what_only_the_answer_said_is_masked_and_not_restored() {
    let config = "[guards.a]\nkind = \"pii\"\nstage = [\"input\", \"output\"]\naction = \"mask\"\n";
    let guards = guards(config);
    let vault = Arc::new(Vault::default());
    let asked = guards.chain(&["a"], Stage::Input).scan(&vault).whole("I am a@b.org").unwrap();
    assert_eq!(asked, "I am [EMAIL_1]");
    let mut answer = (guards.chain(&["a"], Stage::Output).scan(&vault), Restorer::new(vault));
    let text = "Hello [EMAIL_1], meet x@y.org.";
    assert_eq!(answer.whole(text).unwrap(), "Hello a@b.org, meet [EMAIL_2].");
}

#[test]
fn a_number_in_arguments_is_looked_at_and_a_quote_in_a_value_stays_a_quote() {
    let vault = Arc::new(Vault::default());
    let mut masking = Arguments::new(mask_input().scan(&vault));
    let text =
        r#"{"card": 4111111111111111, "n": -1.5e3, "to": "\u0061lice@example.org", "b": true}"#;
    let masked = masking.whole(text).unwrap();
    assert_eq!(masked, r#"{"card": "[CARD_1]", "n": -1.5e3, "to": "[EMAIL_1]", "b": true}"#);
    let quoted = "password = 'pw0rd\\9x!Z\u{e9}'";
    let masked = mask_input().scan(&vault).whole(quoted).unwrap();
    assert_ne!(masked, quoted);
    let mut restoring = Arguments::new(Restorer::new(vault));
    let spelled = serde_json::json!({ "said": masked }).to_string();
    let restored: serde_json::Value =
        serde_json::from_str(&restoring.whole(&spelled).unwrap()).unwrap();
    assert_eq!(restored["said"], quoted);
}

#[test]
fn links_to_unlisted_hosts_are_stripped_and_others_stay() {
    let chain = chain(
        "[guards.a]\nkind = \"urls\"\nhosts = [\"example.org\", \"*.docs.example.org\"]\nstage = [\"output\"]\naction = \"mask\"\n",
        Stage::Output,
    );
    let said = |text: &str| whole(&chain, text).0.unwrap();
    for stays in [
        "See https://example.org/a?b=c#d.",
        "[t](https://a.docs.example.org/x)",
        "HTTPS://EXAMPLE.ORG:443/x",
        "a: b // no comment",
        "![i](/local.png)",
        "note: this",
        "http is a protocol",
        "mailto:a@b.org",
    ] {
        assert_eq!(said(stays), stays);
    }
    for (text, expected) in [
        ("![x](https://evil.test/p?d=secret)", "![x]([link removed])"),
        ("[t](//evil.test/p)", "[t]([link removed])"),
        ("go to https://evil.test/a.", "go to [link removed]."),
        ("https://example.org@evil.test/", "[link removed]"),
        ("https://example.org.evil.test/", "[link removed]"),
        ("https:\\\\evil.test/", "[link removed]"),
        ("<img src=\"//evil.test/x\">", "<img src=\"[link removed]\">"),
        ("[t](javascript:alert(1))", "[t]([link removed]))"),
        ("www.evil.test/x", "[link removed]"),
        ("[r]: https://evil.test/x", "[r]: [link removed]"),
    ] {
        assert_eq!(said(text), expected);
    }
}

#[test]
fn words_have_boundaries_and_no_case() {
    let chain = chain(
        "[guards.a]\nkind = \"pattern\"\nlabel = \"project\"\nwords = [\"aurora\", \"Ägir\", \"機密\"]\nstage = [\"output\"]\naction = \"mask\"\n",
        Stage::Output,
    );
    let said = |text: &str| whole(&chain, text).0.unwrap();
    assert_eq!(
        said("AURORA, auroras, pre_aurora aurora"),
        "[PROJECT_1], auroras, pre_aurora [PROJECT_2]"
    );
    assert_eq!(said("ägir und ägirs"), "[PROJECT_1] und ägirs");
    assert_eq!(said("極機密文書"), "極[PROJECT_1]文書");
}

#[test]
fn an_answer_that_is_not_as_its_schema_wants_it_never_leaves() {
    let schema = "[guards.a]\nkind = \"schema\"\nschema = '{\"type\": \"object\", \"required\": [\"n\"], \"properties\": {\"n\": {\"type\": \"integer\"}}}'\nstage = [\"output\"]\n";
    let chain = chain(schema, Stage::Output);
    assert!(chain.needs_whole());
    assert_eq!(whole(&chain, "{\"n\": 1}").0.unwrap(), "{\"n\": 1}");
    let (result, verdicts) = whole(&chain, "{\"n\": \"secret\"}");
    assert_eq!(result.unwrap_err().label, "schema");
    assert_eq!(verdicts[0].reasons, ["`/n` is not as `type` wants it"]);
    assert_eq!(whole(&chain, "no").0.unwrap_err().label, "json");
}

#[test]
fn a_language_that_is_not_allowed_is_named() {
    let chain = chain(
        "[guards.a]\nkind = \"language\"\nallowed = [\"en\", \"fr\"]\nstage = [\"output\"]\n",
        Stage::Output,
    );
    assert!(!chain.needs_whole());
    let said = |text: &str| whole(&chain, text).0.map_err(|blocked| blocked.label);
    assert!(
        said("The ferry leaves at noon, and nobody on the quay believed that it would be late.")
            .is_ok()
    );
    assert!(
        said("Le bateau part à midi et personne sur le quai ne pensait qu'il serait en retard.")
            .is_ok()
    );
    assert!(said("Ja.").is_ok(), "too short to tell");
    let russian =
        "Учёные сравнили двадцать лет наблюдений и пришли к выводу, что лето стало длиннее.";
    assert_eq!(said(russian).unwrap_err(), "ru");
    let german =
        "Die Fähre fährt am Mittag, und niemand am Kai hat geglaubt, dass sie sich verspätet.";
    assert_eq!(said(german).unwrap_err(), "de");
}

#[test]
fn a_guard_that_cannot_be_made_says_why() {
    let config = |text: &str| {
        let config =
            Config::parse(&format!("{SOUND}{text}"), Path::new("x.toml"), &["demo"]).unwrap();
        Guards::build(&config.guards).err().unwrap_or_default()
    };
    let told = |text: &str| {
        config(text)
            .into_iter()
            .map(|(path, message)| format!("{path}: {message}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let pattern = |regex: &str| {
        format!("[guards.a]\nkind = \"pattern\"\nregex = ['{regex}']\nstage = [\"input\"]\n")
    };
    assert!(told(&pattern("a(")).contains("guards.a: the expression \"a(\" cannot be used"));
    assert!(told(&pattern("a*")).contains("matches nothing at all"));
    assert!(told(&pattern("(\\w{1000}){1000}")).contains("cannot be used"));
    assert!(
        told("[guards.a]\nkind = \"language\"\nallowed = [\"xx\"]\nstage = [\"input\"]\n")
            .contains("xx")
    );
    assert!(
        told("[guards.a]\nkind = \"schema\"\nschema = '{\"type\": 7}'\nstage = [\"output\"]\n")
            .contains("schema")
    );
}

#[test]
fn verdicts_of_one_call_come_together() {
    let chain = mask_input();
    let verdicts = |text: &str| {
        let mut scan = chain.scan(&Arc::default());
        scan.whole(text).unwrap();
        scan.into_verdicts()
    };
    let mut all = verdicts("a@b.org");
    Verdict::gather(&mut all, verdicts("c@d.org and 4111111111111111"));
    assert_eq!(all.len(), 2, "two guards");
    assert_eq!((all[0].findings["email"], all[0].findings["card"]), (2, 1));
    assert_eq!(all[0].scanned_bytes, 7 + 28);
}

#[test]
fn nothing_stands_in_the_way_where_nobody_looks() {
    let chain =
        guards("[guards.a]\nkind = \"pii\"\nstage = [\"input\"]\n").chain(&["a"], Stage::Output);
    assert!(chain.is_empty() && !chain.needs_whole());
    assert!(chain.scan(&Arc::default()).verdicts().next().is_none());
    assert!(Vault::default().is_empty());
}
