//! What people answer is held against what was asked, and a run waits on where it does not fit.

use super::*;

pub(super) const FORMS: &str = r#"
[tools.order]
kind = "http"
method = "GET"
url = "http://127.0.0.1:1/order"
effect = "read"
[tools.order.input]
type = "object"
required = ["number"]
properties = { number = { type = "string" } }
[tools.ask_user]
kind = "builtin"
name = "ask_user"
[agents.former]
route = "fast"
instructions = "Ask."
tools = ["ask_user", "pay", "order"]
[agents.strict]
route = "fast"
instructions = "Act."
tools = ["act"]
confidence = {}
[agents.strict.output_schema]
type = "object"
required = ["total"]
[agents.strict.output_schema.properties.total]
type = "integer"
"#;

pub(super) fn mind(request: &Request) -> Script {
    let form = json!({"type": "object", "required": ["size"], "additionalProperties": false,
        "properties": {"size": {"type": "integer", "minimum": 1}}});
    match (asked(request).as_str(), results(request).as_slice()) {
        ("size", []) => wants(&[("ask_user", json!({"question": "How big?", "schema": form}))]),
        ("both", []) => {
            let form = json!({"type": "object", "required": ["colour", "size"], "properties":
                {"colour": {"type": "string"}, "size": {"type": "integer"}}});
            wants(&[("ask_user", json!({"question": "Which?", "schema": form}))])
        }
        ("broken", []) => {
            let form = json!({"type": "no such type"});
            wants(&[("ask_user", json!({"question": "How big?", "schema": form}))])
        }
        ("what", []) => wants(&[("ask_user", json!({"question": "Which?"}))]),
        ("late", []) => {
            wants(&[("ask_user", json!({"question": "Which?"}))]).after(Duration::from_millis(300))
        }
        ("buy", []) => wants(&[("pay", json!({"to": "ann", "amount": 3}))]),
        ("buy it", []) => wants(&[
            ("pay", json!({"to": "ann", "amount": 3})),
            ("ask_user", json!({"question": "Which?"})),
        ]),
        ("order", []) => wants(&[("order", json!({}))]),
        ("pay", []) => wants(&[("pay", json!({"to": "ann"}))]),
        ("pay", _) => says("Paid."),
        ("act", []) => wants(&[("act", json!({"confidence": 0.1}))]),
        (_, results) => says(&results[0]),
    }
}

/// Sends these values, which are refused for this; the run goes on waiting.
async fn assert_refused(house: &House, (path, state): (&str, &str), values: Value, why: &str) {
    let answer = house.send(KEY, &format!("{path}/input"), &json!({"values": values}), &[]).await;
    assert_eq!(code(&answer), (422, "invalid_request".to_owned()), "{}", answer.text());
    assert!(answer.text().contains(why), "{why}: {}", answer.text());
    assert_eq!(house.get(path).await["state"], state);
}

#[tokio::test]
async fn an_answer_to_a_form_is_refused_until_it_is_what_was_asked_for() {
    let house = House::new(FORMS, mind).await;
    let path = house.begin("former", json!({"input": "size"})).await;
    let run = house.in_state(&path, "waiting_input").await;
    let waits = (path.as_str(), "waiting_input");
    assert_refused(&house, waits, json!("big"), "object").await;
    assert_refused(&house, waits, json!({}), "size").await;
    assert_refused(&house, waits, json!({"size": 0}), "/size").await;
    assert_refused(&house, waits, json!({"size": 1, "more": true}), "more").await;
    let input = format!("{path}/input");
    let other = json!({"request_id": "inp_other", "values": {"size": 3}});
    let answer = house.send(KEY, &input, &other, &[]).await;
    assert_eq!(code(&answer), (409, "invalid_state_transition".to_owned()), "{}", answer.text());
    assert_eq!(house.model.requests().len(), 1, "its model has heard nothing");
    let request = &run["pending"]["inputs"][0]["request_id"];
    let fits = json!({"request_id": request, "values": {"size": 3}});
    assert_eq!(house.send(KEY, &input, &fits, &[]).await.status, 200);
    let run = house.in_state(&path, "completed").await;
    assert!(run["result"]["text"].as_str().unwrap().contains('3'), "{run:#}");
    let kinds = house.kinds(&path).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "input.received").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn what_a_call_lacks_must_be_what_its_tool_takes() {
    let house = House::new(FORMS, mind).await;
    let path = house.begin("former", json!({"input": "pay"})).await;
    house.in_state(&path, "waiting_input").await;
    let waits = (path.as_str(), "waiting_input");
    assert_refused(&house, waits, json!({"amount": 101}), "/amount").await;
    assert_refused(&house, waits, json!("a lot"), "/amount").await;
    // Where one thing is missing, the answer may be that alone.
    let input = format!("{path}/input");
    assert_eq!(house.send(KEY, &input, &json!({"values": 7}), &[]).await.status, 200);
    house.in_state(&path, "waiting_approval").await;
    let approval = house.pending().await;
    assert_eq!(approval["args"], json!({"to": "ann", "amount": 7}), "{approval:#}");
}

#[tokio::test]
async fn of_several_answers_that_name_no_question_the_first_holds() {
    let house = House::new(FORMS, mind).await;
    let answer = r#"{"total":1}"#;
    for (agent, asks, state, values) in [
        ("former", "what", "waiting_input", json!("The red one.")),
        ("strict", "act", "waiting_human", json!({"answer": answer})),
    ] {
        let path = house.begin(agent, json!({"input": asks})).await;
        house.in_state(&path, state).await;
        let (input, body) = (format!("{path}/input"), json!({"values": values}));
        let send = || house.send(KEY, &input, &body, &[]);
        let (first, second, third) = tokio::join!(send(), send(), send());
        let mut codes = [first.status, second.status, third.status];
        codes.sort_unstable();
        assert_eq!(codes, [200, 409, 409], "{agent}");
        let run = house.in_state(&path, "completed").await;
        let kinds = house.kinds(&path).await;
        let heard = kinds.iter().filter(|kind| kind.starts_with("input."));
        // The question, and the answer to it.
        let expected = if agent == "former" { 2 } else { 1 };
        assert_eq!(heard.count(), expected, "{kinds:?}");
        let text = if agent == "former" { "The red one." } else { answer };
        assert_eq!(run["result"]["text"], text, "{run:#}");
    }
}

/// The last word of a chat, of a run that waits for its user.
pub(super) fn asks_still(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["x_agent"]["status"], "waiting_input", "{told}");
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    told["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

pub(super) async fn chats(house: &House, session: &str, text: &str) -> Answer {
    let body = json!({"model": "agent/former", "messages": [{"role": "user", "content": text}]});
    house.send(KEY, CHAT, &body, &[("x-switchpoint-session", session)]).await
}

#[tokio::test]
async fn of_who_is_asked_in_vain_a_person_takes_over_unless_they_answer_after_all() {
    let house = House::new(FORMS, mind).await;
    let says = async |text: &str| chats(&house, "one", text).await;
    asks_still(&says("size").await);
    asks_still(&says("big").await);
    let told = says("very big").await.json();
    assert_eq!(told["x_agent"]["status"], "waiting_human", "{told}");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let escalated = &house.get(&path).await["pending"]["escalated"];
    assert!(escalated.as_str().unwrap().contains("not answered"), "{escalated}");
    let told = says("3").await.json();
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
}

#[tokio::test]
async fn what_a_user_does_not_want_to_say_a_call_goes_without() {
    let house = House::new(FORMS, mind).await;
    let path = house.begin("former", json!({"input": "pay"})).await;
    house.in_state(&path, "waiting_input").await;
    let input = format!("{path}/input");
    let answer = house.send(KEY, &input, &json!({"values": null}), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    house.in_state(&path, "completed").await;
    let told = results(house.model.requests().last().unwrap());
    assert!(told[0].contains("does not want to say"), "{told:?}");
    assert_eq!(house.touched("pay"), 0);
}

#[tokio::test]
async fn a_user_who_declines_in_a_chat_declines_also_what_a_text_could_be() {
    let house = House::new(FORMS, mind).await;
    asks_still(&chats(&house, "one", "order").await);
    let told = chats(&house, "one", " null ").await.json();
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    let told = results(house.model.requests().last().unwrap());
    assert!(told[0].contains("does not want to say"), "{told:?}");
}

#[tokio::test]
async fn a_question_is_asked_and_answered_while_an_approval_is_waited_for() {
    let house = House::new(FORMS, mind).await;
    let told = chats(&house, "one", "buy it").await.json();
    assert_eq!(told["x_agent"]["status"], "waiting_approval", "{told}");
    let said = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(said.starts_with("Which?") && said.contains("approval"), "{said}");
    let told = chats(&house, "one", "blue").await.json();
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let journal = house.journal(&path).await;
    let given = journal.iter().find(|(kind, _)| kind == "input.received");
    assert_eq!(given.map(|(_, data)| &data["values"]), Some(&json!("blue")), "{journal:?}");
    assert_eq!(house.get(&path).await["state"], "waiting_approval");
    let approval = house.pending().await;
    house.decide(LEAD, &approval, json!({"decision": "approve"})).await;
    house.in_state(&path, "completed").await;
}

#[tokio::test]
async fn the_same_answer_by_the_same_key_is_no_other_turn() {
    let house = House::new(FORMS, mind).await;
    let says = async |text: &str, key: &str| {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": "agent/former", "messages": messages});
        let headers = [("x-switchpoint-session", "one"), ("idempotency-key", key)];
        house.send(KEY, CHAT, &body, &headers).await
    };
    asks_still(&says("size", "first").await);
    let told = says("3", "second").await;
    let again = says("3", "second").await;
    assert_eq!(again.status, 200, "{}", again.text());
    let (told, again) = (told.json(), again.json());
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    assert_eq!(told["x_agent"]["run_id"], again["x_agent"]["run_id"], "{again}");
    assert_eq!(told["choices"][0]["message"], again["choices"][0]["message"]);
    assert_eq!(house.model.requests().len(), 2, "nobody is asked again");
    let other = says("4", "second").await;
    assert_eq!(code(&other), (409, "conflict".to_owned()), "{}", other.text());
}

#[tokio::test]
async fn who_answers_a_form_in_a_chat_is_asked_again_until_it_fits() {
    let house = House::new(FORMS, mind).await;
    let says = async |session: &str, text: &str| chats(&house, session, text).await;
    for (session, wrong, why) in
        [("odd", "big", "/size"), ("none", "0", "/size"), ("one", r#"{"size":1,"more":2}"#, "more")]
    {
        assert_eq!(asks_still(&says(session, "size").await), "How big?");
        let again = asks_still(&says(session, wrong).await);
        assert!(again.contains(why) && again.ends_with("How big?"), "{wrong}: {again}");
    }
    assert_eq!(house.model.requests().len(), 3, "its models have heard nothing of that");
    // Of a form with one thing in it the answer is that thing.
    let told = says("one", " 3 ").await.json();
    assert!(told["choices"][0]["message"]["content"].as_str().unwrap().contains('3'), "{told}");
    assert_eq!(told["x_agent"]["status"], "completed");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let journal = house.journal(&path).await;
    let given: Vec<_> = journal.iter().filter(|(kind, _)| kind == "input.received").collect();
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].1["values"], json!({"size": 3}));

    // What a call lacks is held against what its tool takes.
    asks_still(&says("two", "pay").await);
    assert!(asks_still(&says("two", "101").await).contains("/amount"));
    let told = says("two", "7").await.json();
    assert_eq!(told["x_agent"]["status"], "waiting_approval", "{told}");
    assert_eq!(house.pending().await["args"], json!({"to": "ann", "amount": 7}));

    // A form of several things says what they are, and may be left.
    asks_still(&says("three", "both").await);
    let again = asks_still(&says("three", "red, 3").await);
    assert!(again.contains("`colour` (string), `size` (integer)"), "{again}");
    let told = says("three", r#"{"colour": "red", "size": 3}"#).await.json();
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    // Of what is an object, that is what does not fit, and not its text.
    asks_still(&says("five", "both").await);
    let again = asks_still(&says("five", r#"{"colour": 1, "size": 3}"#).await);
    assert!(again.contains("/colour") && !again.contains("\"object\""), "{again}");
    asks_still(&says("four", "both").await);
    assert_eq!(says("four", "null").await.json()["x_agent"]["status"], "completed");
}

#[tokio::test]
async fn a_form_that_makes_no_sense_keeps_nobody_from_answering() {
    let house = House::new(FORMS, mind).await;
    let path = house.begin("former", json!({"input": "broken"})).await;
    house.in_state(&path, "waiting_input").await;
    let answer = json!({"values": "Very."});
    assert_eq!(house.send(KEY, &format!("{path}/input"), &answer, &[]).await.status, 200);
    house.in_state(&path, "completed").await;
}

#[tokio::test]
async fn a_person_who_answers_for_an_agent_answers_as_it_must() {
    let house = House::new(FORMS, mind).await;
    let path = house.begin("strict", json!({"input": "act"})).await;
    house.in_state(&path, "waiting_human").await;
    let waits = (path.as_str(), "waiting_human");
    assert_refused(&house, waits, json!({"answer": "Seven."}), "JSON").await;
    assert_refused(&house, waits, json!({"answer": "{\"total\":\"7\"}"}), "/total").await;
    let answer = json!({"values": {"answer": "{\"total\":7}"}});
    assert_eq!(house.send(KEY, &format!("{path}/input"), &answer, &[]).await.status, 200);
    let run = house.in_state(&path, "completed").await;
    assert_eq!(house.touched("/act"), 0, "{run:#}");
}
