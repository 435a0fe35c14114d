//! A verdict on a stream is the verdict on the whole, and the stream ends as its dialect wants it.

use serde_json::json;

use super::{DOORS, PII, WORDS, guarded, parrot, upstream, ways_in};
use crate::support::client::{chat, open_chat};
use crate::support::replies::{REPLY, ask, word};
use crate::support::{Gateway, Script, Upstream};

#[tokio::test]
async fn what_must_not_be_asked_is_refused_in_every_dialect_before_anybody_is_asked() {
    let upstream = parrot(3).await;
    let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
    for door in &DOORS {
        for stream in [false, true] {
            let answer = door.ask(&gateway, "Tell me about Aurora.", stream).await;
            assert_eq!(answer.status, 403, "{}: {}", door.name, answer.text());
            assert_eq!(answer.header("x-switchpoint-error"), Some("guard_blocked"));
            let text = answer.text();
            assert!(text.contains("`words`") && text.contains("pattern"), "{text}");
            assert!(!text.to_lowercase().contains("aurora"), "{text}");
        }
    }
    assert!(upstream.requests().is_empty());
    let records = gateway.recorded(8).await;
    for record in &records {
        assert_eq!(record["outcome"], "guard_blocked");
        assert_eq!(record["guards"][0]["guard"], "words");
        assert_eq!(record["guards"][0]["stage"], "input");
        assert_eq!(record["guards"][0]["action"], "block");
        assert_eq!(record["guards"][0]["found"]["pattern"], 1);
        assert!(!record.to_string().to_lowercase().contains("aurora"), "{record}");
    }
    let labels = ["guard=\"words\"", "stage=\"input\"", "action=\"block\""];
    assert!((gateway.metric("switchpoint_guard_total", &labels).await - 8.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_answer_ends_where_it_says_what_it_must_not_however_it_was_cut() {
    for piece in [1, 4, 1000] {
        let upstream = upstream(piece, |_| "The word is aurora, and more.".to_owned()).await;
        let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
        for door in &DOORS {
            let whole = door.ask(&gateway, "Which word?", false).await;
            assert_eq!(whole.status, 403, "{}: {}", door.name, whole.text());
            let streamed = door.ask(&gateway, "Which word?", true).await;
            let text = streamed.text();
            assert!(!text.contains("aurora") && !text.contains("more"), "{}: {text}", door.name);
            let is_told = piece < 1000;
            let status = [403, 200][usize::from(is_told)];
            assert_eq!(streamed.status, status, "{}: {text}", door.name);
            let said = door.text(&streamed, true);
            assert!(!is_told || said.trim_end() == "The word is", "{}: {said}", door.name);
            assert!(!is_told || text.contains(door.filtered), "{}: {text}", door.name);
        }
        for record in gateway.recorded(8).await {
            assert_eq!(record["outcome"], "guard_blocked", "{record}");
            assert_eq!(record["guards"].as_array().unwrap().len(), 2, "{record}");
            assert!(record["input_tokens"].as_u64().unwrap() > 0, "{record}");
            assert!(record["output_tokens"].as_u64().unwrap() > 0, "{record}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_blocked_leaves_its_upstream() {
    let upstream = Upstream::answering(|_| {
        Script::stream_head().chunks([word("Hello "), word("au"), word("rora ")]).stall()
    })
    .await;
    let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
    let answer = DOORS[0].ask(&gateway, "Hi", true).await;
    assert!(answer.text().contains("content_filter"), "{}", answer.text());
    assert!(answer.text().trim_end().ends_with("[DONE]"), "{}", answer.text());
    let record = gateway.record().await;
    assert_eq!(
        (&record["outcome"], &record["usage_source"]),
        (&json!("guard_blocked"), &json!("estimated"))
    );
}

#[tokio::test]
async fn only_what_could_still_become_a_match_is_held_back() {
    let upstream = Upstream::answering(|_| {
        Script::stream_head().chunks([word("All is well, and au")]).stall()
    })
    .await;
    let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
    let question = DOORS[0].body;
    let mut body = question("Hi");
    body["stream"] = json!(true);
    let mut opened = open_chat(&gateway, body.to_string()).await;
    // Nothing more comes, and all but the beginning of the word is there.
    let seen = opened.read_until("and ").await;
    assert!(!seen.contains("and au"), "{seen}");
}

#[tokio::test]
async fn each_answer_of_several_is_looked_at() {
    let body = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "served",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "aurora"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    });
    let event = |index: u32, text: &str| {
        let choices = json!([{"index": index, "delta": {"content": text}, "finish_reason": null}]);
        crate::support::replies::event(&format!("\"choices\":{choices}"))
    };
    let pieces = vec![event(0, "fine"), event(1, "au"), event(0, " so"), event(1, "rora.")];
    let upstream = Upstream::answering(move |request| {
        if request.variant == "stream" {
            Script::stream(pieces.clone())
        } else {
            Script::json(200, &body.to_string())
        }
    })
    .await;
    let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
    let question = |stream: bool| {
        json!({"model": "fast", "n": 2, "stream": stream,
               "messages": [{"role": "user", "content": "Hi"}]})
    };
    assert_eq!(chat(&gateway, question(false).to_string()).await.status, 403);
    let streamed = chat(&gateway, question(true).to_string()).await;
    assert!(streamed.text().contains("fine"), "{}", streamed.text());
    assert_eq!(streamed.text().matches("\"content_filter\"").count(), 2, "{}", streamed.text());
    assert!(!streamed.text().contains("rora"), "{}", streamed.text());
}

#[tokio::test]
async fn what_is_masked_in_an_answer_is_the_same_whole_and_in_pieces() {
    let guard = "[guards.out]\nkind = \"pii\"\nstage = [\"output\"]\naction = \"mask\"\n";
    for piece in [1, 2, 7, 1000] {
        let text = "Ask bob@example.org or bob@example.org, at 10.20.30.40.";
        let upstream = upstream(piece, |_| text.to_owned()).await;
        let gateway = guarded(&upstream, "guards = [\"out\"]", guard).await;
        for (door, stream) in ways_in() {
            let answer = door.ask(&gateway, "Whom?", stream).await;
            let expected = "Ask [EMAIL_1] or [EMAIL_1], at [IPV4_1].";
            assert_eq!(door.text(&answer, stream), expected, "{} {stream} {piece}", door.name);
        }
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_is_noted() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let guards = format!(
        "{}dry_run = true\n{}dry_run = true\n[guards.note]\nkind = \"pii\"\nstage = [\"input\"]\n\
         action = \"flag\"\n",
        PII,
        WORDS.replace("[\"input\", \"output\"]", "[\"input\"]"),
    );
    let names = "guards = [\"personal\", \"words\", \"note\"]";
    let gateway = guarded(&upstream, names, &guards).await;
    let body =
        r#"{"model": "fast", "messages":[{"role":"user","content":"Aurora: alice@example.org"}]}"#;
    let answer = chat(&gateway, body).await;
    assert_eq!(answer.text(), REPLY, "verbatim");
    assert_eq!(answer.header("x-switchpoint-flagged"), Some("note"));
    assert_eq!(upstream.only_request().text(), body.replace("\"fast\"", "\"a\""), "verbatim");
    let record = gateway.record().await;
    let notes = record["guards"].as_array().unwrap();
    let note = |name: &str| notes.iter().find(|note| note["guard"] == name).unwrap().clone();
    assert_eq!(
        (&note("personal")["action"], &note("personal")["found"]["email"]),
        (&json!("dry_run"), &json!(1))
    );
    assert_eq!(note("words")["action"], "dry_run");
    assert_eq!(note("note")["action"], "flag");
}

#[tokio::test]
async fn a_guard_that_a_reload_brings_holds_from_the_next_call_on() {
    let upstream = parrot(3).await;
    let plain = format!(
        "{}[routes.fast]\ntargets = [\"up/a\"]\n",
        crate::support::gateway::provider("up", &upstream)
    );
    let gateway = Gateway::start("", &plain).await;
    assert_eq!(chat(&gateway, body_with("aurora")).await.status, 200);
    let guarded = format!("{plain}guards = [\"words\"]\n{WORDS}");
    assert_eq!(gateway.reload(&guarded).await.status, 200);
    assert_eq!(chat(&gateway, body_with("aurora")).await.status, 403);
    assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    // What is only named by a key holds too.
    let keyed =
        format!("{plain}[keys.other]\nsecret = \"sk-other\"\nguards = [\"words\"]\n{WORDS}");
    assert_eq!(gateway.reload(&keyed).await.status, 200);
    assert_eq!(chat(&gateway, body_with("aurora")).await.status, 200);
    let post = crate::support::client::post;
    let path = crate::support::client::CHAT;
    assert_eq!(post(gateway.address, path, "sk-other", body_with("aurora")).await.status, 403);
}

fn body_with(text: &str) -> String {
    (DOORS[0].body)(text).to_string()
}
