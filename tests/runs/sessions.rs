//! A conversation is one, whichever replica each of its turns is asked at.

use futures_util::future;
use serde_json::{Value, json};

use super::stage::{Stage, ask, found, messages, says, texts, wants};
use crate::support::client::Answer;
use crate::support::database::Schema;
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{DONE, finish, role, usage, word};
use crate::support::upstream::Request;
use crate::support::{Gate, Gateway, Script, Upstream};

const SESSION: [(&str, &str); 1] = [("x-switchpoint-session", "s1")];

/// Two gateways on one store.
struct Pair {
    model: Upstream,
    one: Gateway,
    other: Gateway,
}

impl Pair {
    /// `None` without a Postgres.
    async fn new(
        name: &'static str,
        conflict: &str,
        mind: impl Fn(&Request) -> Script + Send + 'static,
    ) -> Option<Self> {
        let schema = Schema::new(name).await?;
        let model = Upstream::answering(mind).await;
        let start = async |replica: &str| {
            let sections = format!(
                "[store]\nurl = \"{}\"\njournal = \"{}\"\n{}{}[agent_engine]\n\
                 session_conflict = \"{conflict}\"\nlease_ttl = \"5s\"\n\
                 [agents.helper]\nroute = \"fast\"\ninstructions = \"Help.\"\n",
                schema.url(None),
                schema.journal(&format!("{name}-{replica}")).display(),
                provider("up", &model),
                route("fast", &["up/m"], ""),
            );
            Gateway::start("", &sections).await
        };
        let (one, other) = (start("one").await, start("other").await);
        Some(Self { model, one, other })
    }
}

async fn says_in(gateway: &Gateway, text: &str) -> Answer {
    ask(gateway, "helper", text, &SESSION).await
}

fn content(answer: &Answer) -> Value {
    answer.json()["choices"][0]["message"]["content"].clone()
}

/// What the users of a question have said.
fn users(request: &Request) -> Vec<Value> {
    let said = messages(request).into_iter().filter(|message| message["role"] == "user");
    said.map(|message| message["content"].clone()).collect()
}

/// Answers at once, but for `hold`, which waits.
fn holding(gate: &Gate) -> impl Fn(&Request) -> Script + Send + 'static {
    let gate = gate.clone();
    move |request| {
        let last = texts(request).pop().unwrap();
        if last != "hold" {
            return says(request, &format!("You said {last}."));
        }
        let script = Script::stream_head().chunks([role(), word("You said")]).gate(&gate);
        script.chunks([word(" hold."), finish(), usage(), DONE.to_owned()]).end()
    }
}

#[tokio::test]
async fn a_turn_at_one_replica_is_known_to_the_next_at_another() {
    let Some(pair) = Pair::new("session_known", "enqueue", holding(&Gate::shut())).await else {
        return;
    };
    assert_eq!(content(&says_in(&pair.one, "one").await), "You said one.");
    assert_eq!(content(&says_in(&pair.other, "two").await), "You said two.");
    let expected = ["Help.", "one", "You said one.", "two"];
    assert_eq!(texts(&pair.model.requests()[1]), expected);
}

#[tokio::test]
async fn a_turn_waits_for_the_one_before_it_at_another_replica() {
    let gate = Gate::shut();
    let Some(pair) = Pair::new("session_enqueue", "enqueue", holding(&gate)).await else { return };
    let first = says_in(&pair.one, "hold");
    let second = async {
        pair.model.asked(1).await;
        let (answer, ()) = tokio::join!(says_in(&pair.other, "two"), async { gate.open() });
        answer
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(content(&first), "You said hold.");
    assert_eq!(content(&second), "You said two.");
    let expected = ["Help.", "hold", "You said hold.", "two"];
    assert_eq!(texts(&pair.model.requests()[1]), expected);
}

#[tokio::test]
async fn a_turn_is_refused_while_another_replica_is_at_work_where_that_is_wanted() {
    let gate = Gate::shut();
    let Some(pair) = Pair::new("session_reject", "reject", holding(&gate)).await else { return };
    let first = says_in(&pair.one, "hold");
    let second = async {
        pair.model.asked(1).await;
        let refused = says_in(&pair.other, "two").await;
        gate.open();
        refused
    };
    let (first, refused) = tokio::join!(first, second);
    assert_eq!(content(&first), "You said hold.");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("conflict")));
    assert_eq!(pair.model.requests().len(), 1);
}

#[tokio::test]
async fn a_turn_ends_the_one_that_runs_at_another_replica_where_that_is_wanted() {
    let gate = Gate::shut();
    let Some(pair) = Pair::new("session_interrupt", "interrupt", holding(&gate)).await else {
        return;
    };
    let first = says_in(&pair.one, "hold");
    let second = async {
        pair.model.asked(1).await;
        says_in(&pair.other, "two").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.json()["x_agent"]["status"], "cancelled", "{}", first.text());
    assert_eq!(content(&second), "You said two.");
    assert_eq!(users(&pair.model.requests()[1]), ["hold", "two"]);
}

#[tokio::test]
async fn turns_that_are_asked_for_at_the_same_moment_come_one_behind_the_other() {
    let Some(pair) = Pair::new("session_race", "enqueue", holding(&Gate::shut())).await else {
        return;
    };
    let turns = (0..8).map(|turn| {
        let gateway = if turn % 2 == 0 { &pair.one } else { &pair.other };
        async move { says_in(gateway, &format!("turn {turn}")).await }
    });
    for answer in future::join_all(turns).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut known: Vec<Vec<Value>> = pair.model.requests().iter().map(users).collect();
    known.sort_by_key(Vec::len);
    assert_eq!(known.iter().map(Vec::len).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert!(known.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{known:?}");
}

/// Opens a gate once whatever is under way beside it has got somewhere.
async fn opens(gate: &Gate) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    gate.open();
}

#[tokio::test]
async fn whoever_asks_the_same_while_it_is_at_work_ends_no_turn_and_hears_the_same() {
    for conflict in ["interrupt", "reject", "enqueue"] {
        let gate = Gate::shut();
        let sections = format!(
            "[agent_engine]\nsession_conflict = \"{conflict}\"\n[agents.helper]\n\
             route = \"fast\"\ninstructions = \"Help.\"\nbudget = {{ user_runs = \"1/m\" }}\n"
        );
        let stage = Stage::new(&sections, holding(&gate), found).await;
        let key = [SESSION[0], ("idempotency-key", "first")];
        let first = stage.chat_in("helper", "hold", &key);
        let again = async {
            stage.model.asked(1).await;
            tokio::join!(stage.chat_in("helper", "hold", &key), opens(&gate)).0
        };
        let (first, again) = tokio::join!(first, again);
        assert_eq!(content(&first), "You said hold.", "{conflict}: {}", first.text());
        assert_eq!(content(&again), "You said hold.", "{conflict}: {}", again.text());
        assert_eq!(first.json()["id"], again.json()["id"]);
        assert_eq!(stage.model.requests().len(), 1);
        // Once it is over it is no other run either, of which a user has but one a minute.
        let later = stage.chat_in("helper", "hold", &key).await;
        assert_eq!(content(&later), "You said hold.", "{conflict}: {}", later.text());
    }
}

/// Wants a payment that a person has to let pass, unless its user says otherwise.
fn paying(request: &Request) -> Script {
    let said = texts(request).pop().unwrap();
    if said == "Pay." { wants(request, &[("pay", "{}")]) } else { says(request, "As you like.") }
}

#[tokio::test]
async fn a_turn_ends_one_that_waits_for_people_where_that_is_wanted() {
    let sections = |conflict: &str| {
        format!(
            "[agent_engine]\nsession_conflict = \"{conflict}\"\n[tools.pay]\nkind = \"http\"\n\
             method = \"POST\"\nurl = \"{{tools}}/pay\"\neffect = \"once\"\napproval = {{}}\n\
             input = {{ type = \"object\" }}\n[agents.payer]\nroute = \"fast\"\n\
             instructions = \"Pay.\"\ntools = [\"pay\"]\n"
        )
    };
    for conflict in ["interrupt", "enqueue"] {
        let stage = Stage::new(&sections(conflict), paying, found).await;
        let key = [SESSION[0], ("idempotency-key", "first")];
        let first = stage.chat_in("payer", "Pay.", &key).await.json();
        assert_eq!(first["x_agent"]["status"], "waiting_approval", "{first}");
        let path = format!("/v1/agents/runs/{}", first["x_agent"]["run_id"].as_str().unwrap());
        // The same once more is no other turn.
        let again = stage.chat_in("payer", "Pay.", &key).await.json();
        assert_eq!(again["x_agent"]["run_id"], first["x_agent"]["run_id"], "{again}");
        let next = stage.chat_in("payer", "Never mind.", &SESSION).await.json();
        if conflict == "enqueue" {
            assert_eq!(next["x_agent"]["run_id"], first["x_agent"]["run_id"], "{next}");
            assert_eq!(stage.get(&path).await["state"], "waiting_approval");
            continue;
        }
        assert_eq!(next["choices"][0]["message"]["content"], "As you like.", "{next}");
        assert_eq!(stage.get(&path).await["state"], "cancelled");
        let pending = stage.get("/v1/agents/approvals?state=pending").await;
        assert_eq!(pending["data"], json!([]), "nobody is asked any more");
        assert!(stage.tools.requests().is_empty());
        // What was called off has its word in the conversation.
        let told = texts(&stage.model.requests()[1]);
        assert!(told.iter().any(|it| it.contains("cancelled")), "{told:?}");
    }
}

#[tokio::test]
async fn what_is_said_while_a_person_is_waited_for_is_heard_when_that_has_decided() {
    let sections = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/pay\"\n\
        effect = \"once\"\napproval = {}\ninput = { type = \"object\" }\n[agents.payer]\n\
        route = \"fast\"\ninstructions = \"Pay.\"\ntools = [\"pay\"]\n";
    let stage = Stage::new(sections, paying, found).await;
    let first = stage.chat_in("payer", "Pay.", &SESSION).await.json();
    let path = format!("/v1/agents/runs/{}", first["x_agent"]["run_id"].as_str().unwrap());
    for text in ["And hurry.", "Please."] {
        let next = stage.chat_in("payer", text, &SESSION).await.json();
        assert_eq!(next["x_agent"]["status"], "waiting_approval", "{next}");
    }
    let pending = stage.get("/v1/agents/approvals?state=pending").await;
    let approval = pending["data"][0]["id"].as_str().unwrap();
    let decided = format!("/v1/agents/approvals/{approval}");
    let body = json!({"decision": "approve"});
    let decided = stage.post(&decided, KEY, &body).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let run = stage.in_state(&path, "completed").await;
    assert_eq!(run["result"]["text"], "As you like.", "{run:#}");
    let asked = messages(stage.model.requests().last().unwrap());
    let roles: Vec<_> = asked.iter().map(|it| it["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "user", "user"], "{asked:#?}");
    assert_eq!(
        (&asked[4]["content"], &asked[5]["content"]),
        (&json!("And hurry."), &json!("Please."))
    );
}
