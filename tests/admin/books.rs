//! What the ledger tells: pages, sums and files of it, and to each what is theirs.

use std::time::Duration;

use super::*;

const TEAMS: &str = "[teams.a]\n[teams.b]\n\
    [keys.one]\nsecret = \"sk-one\"\nteam = \"a\"\ntags = { env = \"test\", app = \"web\" }\n\
    [keys.two]\nsecret = \"sk-two\"\nteam = \"b\"\n\
    [keys.lead]\nsecret = \"sk-lead\"\nteam = \"a\"\nrole = \"team_admin\"\n";

/// Calls of two teams, and the ids of the first team's.
async fn called() -> (Upstream, Gateway, Vec<String>) {
    let (upstream, gateway) = house(TEAMS).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let answer = chat(&gateway, "sk-one").await;
        ids.insert(0, answer.header("x-request-id").unwrap().to_owned());
        assert_eq!(chat(&gateway, "sk-two").await.status, 200);
    }
    (upstream, gateway, ids)
}

async fn seen(gateway: &Gateway, key: &str, path: &str) -> Answer {
    let key = format!("Bearer {key}");
    send(gateway.admin, Method::GET, path, &[("authorization", &key)], "").await
}

#[tokio::test]
async fn pages_of_calls_are_whole_and_newest_first() {
    let (_upstream, gateway, ids) = called().await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = look(&gateway, &format!("/admin/calls?team=a&limit=2{after}")).await;
        let rows = page["data"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ids);
    let one = look(&gateway, &format!("/admin/calls/{}", ids[0])).await;
    assert_eq!((&one["key"], &one["route"]), (&json!("one"), &json!("fast")));
    assert_eq!(one["attempts"][0]["provider"], "up", "{one:#}");
    assert_eq!(one["attempts"][0]["outcome"], "ok", "{one:#}");
    let none = operate(&gateway, Method::GET, "/admin/calls/none", &json!(null)).await;
    assert_eq!(refusal(&none), code(404, "not_found"));
    for (query, count) in
        [("outcome=ok", 10), ("outcome=timeout", 0), ("tag=env=test", 5), ("to=2020-01-01", 0)]
    {
        let page = look(&gateway, &format!("/admin/calls?{query}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn sums_are_by_whatever_calls_have_in_common() {
    let (_upstream, gateway, _) = called().await;
    let names = "key team user org route agent task provider model surface outcome purpose day tag";
    for name in names.split(' ') {
        let told = look(&gateway, &format!("/admin/usage?group_by={name}&team=a")).await;
        let line = &told["data"][0];
        assert_eq!((&line["calls"], &line["total_tokens"]), (&json!(5), &json!(75)), "{name}");
        assert!(line.as_object().unwrap().contains_key(name), "{line:#}");
    }
    let both = look(&gateway, "/admin/usage?group_by=team,model").await;
    assert_eq!(both["data"].as_array().unwrap().len(), 2, "{both:#}");
    let all = look(&gateway, "/admin/usage").await;
    assert_eq!(all["data"][0]["calls"], 10, "{all:#}");
    let tags = look(&gateway, "/admin/usage?group_by=tag&key=one").await;
    let tags: Vec<_> = tags["data"].as_array().unwrap().iter().map(|line| &line["tag"]).collect();
    assert!(tags.contains(&&json!("env=test")) && tags.contains(&&json!("app=web")), "{tags:?}");
}

#[tokio::test]
async fn a_team_admin_sees_the_calls_of_the_team_and_of_no_other() {
    let (_upstream, gateway, ids) = called().await;
    let calls = seen(&gateway, "sk-lead", "/admin/calls").await.json();
    let rows = calls["data"].as_array().unwrap();
    assert!(rows.len() == 5 && rows.iter().all(|row| row["team"] == "a"), "{calls:#}");
    let mine = seen(&gateway, "sk-lead", &format!("/admin/calls/{}", ids[0])).await;
    assert_eq!(mine.status, 200);
    let theirs = look(&gateway, "/admin/calls?team=b&limit=1").await["data"][0]["id"].clone();
    let theirs = format!("/admin/calls/{}", theirs.as_str().unwrap());
    assert_eq!(refusal(&seen(&gateway, "sk-lead", &theirs).await), code(404, "not_found"));
    for path in ["/admin/calls?team=b", "/admin/usage?group_by=team&team=b"] {
        assert_eq!(seen(&gateway, "sk-lead", path).await.json()["data"], json!([]), "{path}");
    }
    for path in ["/admin/calls/export", "/admin/usage/export?group_by=team"] {
        let file = seen(&gateway, "sk-lead", path).await;
        assert!(!file.text().contains(",b,") && !file.text().contains("\nb,"), "{}", file.text());
    }
}

#[tokio::test]
async fn a_file_of_calls_has_every_call_in_both_spellings() {
    let (_upstream, gateway, ids) = called().await;
    let csv = operate(&gateway, Method::GET, "/admin/calls/export?team=a", &json!(null)).await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let disposition = csv.header("content-disposition").unwrap();
    assert!(disposition.contains("calls.csv"), "{disposition}");
    let lines: Vec<&str> = csv.text().split("\r\n").collect();
    assert!(lines[0].starts_with("id,at,surface,stream,key,team,"), "{}", lines[0]);
    let found: Vec<_> = lines[1..6].iter().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!((found, lines[6]), (ids.iter().map(String::as_str).collect(), ""));

    let path = "/admin/calls/export?team=a&format=jsonl";
    let rows = operate(&gateway, Method::GET, path, &json!(null)).await;
    let rows: Vec<Value> =
        rows.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = look(&gateway, "/admin/calls?team=a").await;
    assert_eq!(json!(rows), page["data"], "a file says what a page says");

    let path = "/admin/usage/export?group_by=team";
    let sums = operate(&gateway, Method::GET, path, &json!(null)).await;
    let lines: Vec<&str> = sums.text().split("\r\n").collect();
    assert!(lines[0].starts_with("team,calls,"), "{}", lines[0]);
    assert!(lines[1].starts_with("a,5,") && lines[2].starts_with("b,5,"), "{}", sums.text());
    let bad = operate(&gateway, Method::GET, "/admin/calls/export?format=xml", &json!(null)).await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn no_cell_of_a_file_is_a_formula() {
    let (_upstream, gateway) = house("").await;
    for model in ["=1+1", "+1", "-1", "@a"] {
        let asked = client::post(gateway.address, CHAT, KEY, ask(&format!("up/{model}"))).await;
        assert_eq!(asked.status, 200, "{}", asked.text());
    }
    let file = operate(&gateway, Method::GET, "/admin/calls/export", &json!(null)).await;
    for model in ["=1+1", "+1", "-1", "@a"] {
        assert!(file.text().contains(&format!(",'{model},")), "{}", file.text());
        assert!(!file.text().contains(&format!(",{model},")), "{}", file.text());
    }
}

#[tokio::test]
async fn the_holder_of_a_key_sees_what_each_model_has_used_of_it() {
    let (_upstream, gateway, _) = called().await;
    let own = client::get(gateway.address, "/v1/me/usage", "sk-one").await.json();
    let models = json!([{"model": "up/a", "calls": 5, "tokens": 75, "usd": 0.0}]);
    assert_eq!((&own["key"], &own["models"]), (&json!("one"), &models), "{own:#}");
    assert_eq!(own.get("degraded"), None);
    let nothing = client::get(gateway.address, "/v1/me/usage", "sk-lead").await.json();
    assert_eq!(nothing["models"], json!([]));
}

#[tokio::test]
async fn what_a_crash_cut_off_is_told_beside_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let sections = format!(
        "[store]\nurl = \"sqlite:{}\"\n[keys.one]\nsecret = \"sk-one\"\n\
         budget = [{{ tokens = 1_000_000, window = \"1d\" }}]\n",
        file.display()
    );
    let upstream = Upstream::start([("a", [Script::default().stall()])]).await;
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut call = tokio::task::JoinSet::new();
    call.spawn(client::post(gateway.address, CHAT, "sk-one", ask("up/a")));
    upstream.asked(1).await;
    gateway.kill();
    let gateway = Gateway::before(&upstream, &sections).await;
    let own = client::get(gateway.address, "/v1/me/usage", "sk-one").await.json();
    let [of_none] = own["models"].as_array().unwrap().as_slice() else { panic!("{own:#}") };
    assert_eq!((&of_none["model"], &of_none["calls"]), (&Value::Null, &json!(1)), "{own:#}");
    assert_eq!(of_none["tokens"], own["budgets"][0]["used"]);
}

#[tokio::test]
async fn a_store_that_is_away_is_said_and_holders_see_their_budgets_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let budget =
        "[keys.one]\nsecret = \"sk-one\"\nbudget = [{ tokens = 1_000_000, window = \"1d\" }]\n";
    let store = format!("[store]\nurl = \"sqlite:{}\"\n{budget}", file.display());
    let (_upstream, gateway) = house(&store).await;
    assert_eq!(chat(&gateway, "sk-one").await.status, 200);
    assert_eq!(look(&gateway, "/admin/calls").await["data"].as_array().unwrap().len(), 1);
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch("DROP TABLE calls; DROP TABLE usage; DROP TABLE audit").unwrap();
    for path in ["calls", "calls/x", "calls/export", "usage", "usage/export", "audit"] {
        let path = format!("/admin/{path}");
        let answer = operate(&gateway, Method::GET, &path, &json!(null)).await;
        assert_eq!(refusal(&answer), code(503, "overloaded"), "{path}");
    }
    let own = client::get(gateway.address, "/v1/me/usage", "sk-one").await;
    assert_eq!(own.status, 200, "{}", own.text());
    let own = own.json();
    assert_eq!((&own["models"], &own["degraded"]), (&Value::Null, &json!(true)), "{own:#}");
    assert_eq!(own["budgets"][0]["used"], 15);
}

/// Longer than a socket holds and than any page is.
const MANY: usize = 3000;

async fn call_often(address: SocketAddr, count: usize) {
    for _ in 0..count {
        let answer = client::post(address, CHAT, KEY, ask("fast")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_file_is_pulled_page_by_page() {
    let (_upstream, gateway) = house("").await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let address = gateway.address;
        calls.spawn(call_often(address, MANY / 30));
    }
    calls.join_all().await;
    let key = format!("Bearer {ADMIN_KEY}");
    let mut asked = request(Method::GET, "/admin/calls/export?format=jsonl", "", "".into());
    asked.headers_mut().insert("authorization", HeaderValue::from_str(&key).unwrap());
    let mut file = open(gateway.admin, asked).await;
    // Others are served while it is not read.
    assert_eq!(look(&gateway, "/admin/calls?limit=1").await["data"].as_array().unwrap().len(), 1);
    let mut lines = 0;
    while let Some(piece) = file.next_within(Duration::from_secs(10)).await {
        lines += String::from_utf8_lossy(&piece.bytes).matches('\n').count();
    }
    assert_eq!(lines, MANY);
}

#[tokio::test]
async fn what_a_guard_refuses_has_the_marks_of_its_client_too() {
    let guard = "[guards.words]\nkind = \"pattern\"\nwords = [\"Hi\"]\nstage = [\"input\"]\n\
        action = \"block\"\n[routes.safe]\ntargets = [\"up/a\"]\nguards = [\"words\"]\n";
    let (_upstream, gateway) = house(guard).await;
    let key = format!("Bearer {KEY}");
    let headers = [("authorization", &*key), ("x-switchpoint-tags", "n=one")];
    let body = json!({"model": "safe", "messages": [{"role": "user", "content": "Hi"}]});
    let path = "/v1/chat/completions";
    let refused = send(gateway.address, Method::POST, path, &headers, &body.to_string()).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let row = look(&gateway, "/admin/calls").await["data"][0].clone();
    assert_eq!((&row["outcome"], &row["tags"]), (&json!("guard_blocked"), &json!({"n": "one"})));
}
