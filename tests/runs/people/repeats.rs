//! Turns by which a run goes on that come twice, or several at the same moment.

use super::answers::{FORMS, asks_still, chats, mind};
use super::*;

const RESPONSES: &str = "/v1/responses";

async fn responds(house: &House, key: Option<&str>, body: &Value) -> Answer {
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    let answer = house.send(LEAD, RESPONSES, body, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn says_in(conversation: &str, text: &str, background: bool) -> Value {
    json!({"model": "agent/former", "input": text, "conversation": conversation,
        "background": background})
}

/// A response as it is kept, as soon as it is whole.
async fn completed(house: &House, response: &Value) -> Value {
    let path = format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    loop {
        let kept = client::get(house.gateway.address, &path, LEAD).await.json();
        if kept["status"] == "completed" {
            return kept;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_asked_for_again_has_the_name_that_it_had() {
    let house = House::new(FORMS, mind).await;
    for (conversation, background) in [("one", false), ("two", true)] {
        let asked = responds(&house, None, &says_in(conversation, "size", false)).await.json();
        let turn = says_in(conversation, "3", background);
        let first = responds(&house, Some(conversation), &turn).await.json();
        assert_ne!(first["id"], asked["id"]);
        let over = completed(&house, &first).await;
        let again = responds(&house, Some(conversation), &turn).await.json();
        assert_eq!((&again["id"], &again["output"]), (&over["id"], &over["output"]), "{again:#}");
        assert_eq!(again["metadata"], asked["metadata"], "it is the same run");
    }
    assert_eq!(house.model.requests().len(), 4, "nobody is asked again");
}

async fn says(house: &House, (text, key): (&str, &str)) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    let body = json!({"model": "agent/former", "messages": messages});
    let headers = [("x-switchpoint-session", "one"), ("idempotency-key", key)];
    let answer = house.send(KEY, CHAT, &body, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn the_same_answer_that_comes_several_times_at_once_is_one() {
    let house = House::new(FORMS, mind).await;
    asks_still(&chats(&house, "one", "size").await);
    let turn = ("3", "k");
    let (a, b, c) = tokio::join!(says(&house, turn), says(&house, turn), says(&house, turn));
    for told in [&b, &c] {
        assert_eq!((&told["id"], &told["choices"]), (&a["id"], &a["choices"]), "{told}");
    }
    assert_eq!((&a["x_agent"]["status"], house.model.requests().len()), (&json!("completed"), 2));
}

#[tokio::test]
async fn the_same_answer_is_one_also_where_it_has_waited_for_the_question() {
    let house = House::new(FORMS, mind).await;
    let turn = ("red", "k");
    let twice = async {
        house.model.asked(1).await;
        tokio::join!(says(&house, turn), says(&house, turn))
    };
    let (asked, (one, other)) = tokio::join!(chats(&house, "one", "late"), twice);
    asks_still(&asked);
    assert_eq!((&one["id"], &one["choices"]), (&other["id"], &other["choices"]), "{other}");
    assert_eq!(one["x_agent"]["run_id"], asked.json()["x_agent"]["run_id"]);
    assert_eq!(house.model.requests().len(), 2);
}

#[tokio::test]
async fn the_same_decision_that_comes_several_times_at_once_is_one() {
    let house = House::new(FORMS, mind).await;
    let asked = responds(&house, None, &says_in("one", "buy", false)).await.json();
    let output = asked["output"].as_array().unwrap();
    let wanted = output.iter().find(|item| item["type"] == "mcp_approval_request").unwrap();
    let body = json!({"model": "agent/former", "previous_response_id": asked["id"], "input": [{
        "type": "mcp_approval_response", "approval_request_id": wanted["id"], "approve": true,
    }]});
    let decides = async || responds(&house, Some("k"), &body).await.json();
    let (a, b, c) = tokio::join!(decides(), decides(), decides());
    assert_eq!((&a["id"], &a["id"]), (&b["id"], &c["id"]));
    assert_eq!((&a["status"], house.touched("pay")), (&json!("completed"), 1), "{a:#}");
}

#[tokio::test]
async fn of_several_answers_to_one_question_the_first_holds_and_the_others_are_heard_behind_it() {
    let house = House::new(FORMS, mind).await;
    asks_still(&chats(&house, "one", "what").await);
    let (red, blue) = tokio::join!(chats(&house, "one", "red"), chats(&house, "one", "blue"));
    for told in [red.json(), blue.json()] {
        assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    }
    let heard = serde_json::to_string(&messages(house.model.requests().last().unwrap())).unwrap();
    assert!(heard.contains("red") && heard.contains("blue"), "{heard}");
    assert_eq!(house.model.requests().len(), 3, "one is the answer, the other the next turn");
}
