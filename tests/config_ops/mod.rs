//! Changing the config by the operators' door: what is checked, served, kept, and taken back.

mod canary;
mod history;
mod secrets;

use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::{get, post};
use crate::support::gateway::{ADMIN_KEY, config, provider, route};
use crate::support::replies::REPLY;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

async fn upstream() -> Upstream {
    Upstream::answering(|_| Script::json(200, REPLY)).await
}

/// A whole config in which `fast` may be tried so often.
fn with_attempts(upstream: &Upstream, attempts: u32) -> String {
    let route = route("fast", &["up/a"], &format!("attempts = {attempts}"));
    config("", &(provider("up", upstream) + &route))
}

async fn house(upstream: &Upstream) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), with_attempts(upstream, 1)).unwrap();
    Gateway::run(folder, "").await
}

/// Asks for a change, and must have it.
async fn order(gateway: &Gateway, path: &str, body: &Value) -> Value {
    let (status, told) = ask(gateway, path, body).await;
    assert_eq!(status, 200, "{path}: {told:#}");
    told
}

/// Status and answer.
async fn ask(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let answer = post(gateway.admin, path, ADMIN_KEY, body.to_string()).await;
    (answer.status, answer.json())
}

async fn look(gateway: &Gateway, path: &str) -> Value {
    let answer = get(gateway.admin, path, ADMIN_KEY).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn state(gateway: &Gateway) -> Value {
    look(gateway, "/admin/config").await
}

/// The history as number, how, by whom and in which state, the newest first.
async fn history(gateway: &Gateway) -> Vec<(u64, String, String, String)> {
    let told = look(gateway, "/admin/config/generations").await;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| {
        let number = row["generation"].as_u64().unwrap();
        (number, text(row, "how"), text(row, "by"), text(row, "state"))
    };
    told["data"].as_array().unwrap().iter().map(row).collect()
}

fn entry(number: u64, how: &str, by: &str, state: &str) -> (u64, String, String, String) {
    (number, how.to_owned(), by.to_owned(), state.to_owned())
}

fn file(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.folder().join("config.toml")).unwrap()
}

/// A command against this gateway: whether it went well, and what it said.
async fn command(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.env_clear().env("SWITCHPOINT_ADMIN_KEY", ADMIN_KEY);
    command.arg("config").args(arguments).current_dir(gateway.folder());
    command.env("SWITCHPOINT_ADMIN_URL", format!("http://{}", gateway.admin));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Waits for the state of the config to be so.
async fn becomes(gateway: &Gateway, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let began = tokio::time::Instant::now();
    loop {
        let state = state(gateway).await;
        if condition(&state) {
            return state;
        }
        assert!(began.elapsed() < PATIENCE, "{what} never came: {state:#}");
    }
}

#[tokio::test]
async fn what_waits_for_the_next_start_is_named_and_is_not_tried() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let text = with_attempts(&upstream, 1)
        .replace("workers = 2", "workers = 1\nhead_timeout = \"7s\"\nmax_connections = 77")
        .replace(ADMIN_KEY, "sk-test-another")
        .replace("memory:", "sqlite:state.db")
        .replace("level = \"debug\"", "level = \"info\"");
    let waiting = "server.workers, server.max_connections, server.head_timeout, admin.key, \
                   store.url, telemetry.level";
    std::fs::write(gateway.folder().join("next.toml"), &text).unwrap();
    let (_, said) = command(&gateway, &["diff", "next.toml"]).await;
    assert!(said.contains(&format!("at the next start only: {waiting}\n")), "{said}");
    let (done, said) = command(&gateway, &["apply", "next.toml", "--canary", "10%"]).await;
    assert!(!done && said.contains("cannot be tried"), "{said}");
    assert_eq!(state(&gateway).await["at_next_start"], json!([]));
    let (done, said) = command(&gateway, &["apply", "next.toml"]).await;
    assert!(done && said.contains(&format!("at the next start only: {waiting}\n")), "{said}");
    // It waits until then, whatever else changes meanwhile.
    let text = text.replace("attempts = 1", "attempts = 2");
    let state = order(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    let names: Vec<&str> =
        state["at_next_start"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names.join(", "), waiting);
    let logged = gateway.output().join("\n");
    assert!(logged.contains("admin.key") && !logged.contains("sk-test-another"), "{logged}");
}

#[tokio::test]
async fn a_file_that_is_gone_is_told_and_what_was_served_serves_on() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    std::fs::remove_file(gateway.folder().join("config.toml")).unwrap();
    let is_told = |state: &Value| state["last_error"]["problems"][0].is_string();
    let state = becomes(&gateway, "the complaint", is_told).await;
    assert!(state["last_error"].to_string().contains("cannot be read"), "{state:#}");
    assert_eq!(state["generation"], 1);
    std::fs::write(gateway.folder().join("config.toml"), with_attempts(&upstream, 1)).unwrap();
    becomes(&gateway, "the end of it", |state| state["last_error"].is_null()).await;
}

#[test]
fn a_check_reads_the_files_that_a_start_reads_and_names_each_with_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let sections = "[providers.up]\nkind = \"openai-compatible\"\n\
        base_url = \"https://127.0.0.1:1/v1\"\nca = \"authority.pem\"\n\n\
        [store]\nurl = \"sqlite:nowhere/state.db\"\nshared = \"rediss://127.0.0.1:1\"\n\
        shared_ca = \"shared.pem\"\n\n\
        [telemetry.otlp]\nendpoint = \"https://127.0.0.1:1\"\nca = \"collector.pem\"\n";
    let text = config("tls = { cert = \"cert.pem\", key = \"key.pem\" }", sections);
    std::fs::write(folder.path().join("config.toml"), &text).unwrap();
    for arguments in [["check", "config.toml"].as_slice(), &["serve", "--config", "config.toml"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.env_clear().args(arguments).current_dir(folder.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for (field, what, begins) in [
            ("server.tls.cert", "cert.pem", "tls = "),
            ("store.url", "nowhere", "url = "),
            ("store.shared_ca", "shared.pem", "shared_ca = "),
            ("telemetry.otlp.ca", "collector.pem", "ca = \"collector"),
            ("providers.up.ca", "authority.pem", "ca = \"authority"),
        ] {
            // A start says first what is missing on its own side.
            if arguments[0] == "serve" && field == "providers.up.ca" {
                continue;
            }
            let line = text.lines().position(|line| line.starts_with(begins)).unwrap() + 1;
            let told = said.lines().find(|told| told.contains(&format!(":{line}: {field}: ")));
            assert!(told.is_some_and(|told| told.contains(what)), "{field}: {said}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_built_is_told_with_all_else_and_with_lines() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let more = "when = 'request.modl == \"a\"'\n\n[guards.g]\nkind = \"pattern\"\n\
                stage = [\"output\"]\naction = \"block\"\nregex = ['(']\n";
    let text = with_attempts(&upstream, 1) + more;
    let line = |needle: &str| text.lines().position(|line| line.starts_with(needle)).unwrap() + 1;
    let told = order(&gateway, "/admin/config/check", &json!({"text": text})).await;
    let problems = told["problems"].as_array().unwrap();
    let places: Vec<u64> = problems.iter().filter_map(|one| one["line"].as_u64()).collect();
    assert_eq!(places, [line("when") as u64, line("[guards.g]") as u64], "{told:#}");
    assert_eq!(problems[0]["path"], "routes.fast.when");
    std::fs::write(gateway.folder().join("bad.toml"), &text).unwrap();
    let (done, said) = command(&gateway, &["apply", "bad.toml"]).await;
    let expected = format!("bad.toml:{}: routes.fast.when: ", line("when"));
    assert!(!done && said.starts_with(&expected), "{said}");
}

#[tokio::test]
async fn a_check_builds_tools_as_a_start_does() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let http = |name: &str, effect: &str, more: &str| {
        format!(
            "\n[tools.{name}]\nkind = \"http\"\ndescription = \"Does it.\"\neffect = \"{effect}\"\n\
             method = \"POST\"\nurl = \"http://127.0.0.1:1/\"\n{more}\n"
        )
    };
    let pattern = "input = { type = \"object\", properties = { a = { pattern = \"(\" } } }";
    let text = [
        with_attempts(&upstream, 1),
        http("strict", "read", pattern),
        http("pay", "once", "approval = { when = \"args.a >\" }"),
        "\n[tools.ask]\nkind = \"graphql\"\ndescription = \"Asks.\"\neffect = \"read\"\n\
         url = \"http://127.0.0.1:1/\"\nquery = \"query A { x } query B { y }\"\n"
            .to_owned(),
        "\n[tools.sales]\nkind = \"sql\"\ndsn = \"sqlite:x.db\"\n\
         [tools.sales.templates]\none = \"SELECT $1\"\n"
            .to_owned(),
    ]
    .concat();
    let paths = ["tools.strict.input", "tools.pay.approval.when", "tools.ask.query", "tools.sales"];
    let told = order(&gateway, "/admin/config/check", &json!({"text": text})).await;
    let problems = told["problems"].as_array().unwrap().iter();
    let told: Vec<&str> = problems.map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(told, paths);
    std::fs::write(gateway.folder().join("bad.toml"), &text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.env_clear().args(["check", "bad.toml"]).current_dir(gateway.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for path in paths {
        assert!(said.contains(&format!(": {path}: ")), "{path}: {said}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_line_and_nothing_is_served() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let text = with_attempts(&upstream, 2).replace("up/a", "op/a");
    for path in ["/admin/config/apply", "/admin/config/diff"] {
        let (status, _) = ask(&gateway, path, &json!({})).await;
        assert_eq!(status, if path.ends_with("apply") { 400 } else { 200 }, "{path}");
    }
    let told = order(&gateway, "/admin/config/check", &json!({"text": text})).await;
    assert_eq!(told["ok"], false);
    let problem = &told["problems"][0];
    let line = text.lines().position(|line| line.contains("op/a")).unwrap() + 1;
    assert_eq!(
        (&problem["line"], &problem["path"]),
        (&json!(line), &json!("routes.fast.targets[0]"))
    );
    assert!(problem["message"].as_str().unwrap().contains("\"up\""), "{problem}");
    let (status, told) = ask(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    assert_eq!(status, 400);
    assert!(told["error"]["message"].as_str().unwrap().contains("routes.fast.targets[0]"));
    let good = json!({"text": with_attempts(&upstream, 2).replace("workers = 2", "workers = 1")});
    let told = order(&gateway, "/admin/config/check", &good).await;
    assert_eq!((&told["ok"], &told["at_next_start"]), (&json!(true), &json!(["server.workers"])));
    assert_eq!(state(&gateway).await["generation"], 1);
    assert_eq!(file(&gateway), with_attempts(&upstream, 1));
}

#[tokio::test]
async fn a_secret_that_was_left_out_is_the_one_that_is_served_and_none_shows() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let shown = state(&gateway).await["text"].as_str().unwrap().to_owned();
    for secret in ["sk-upstream-up", ADMIN_KEY, crate::support::gateway::KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let text = shown.replace("attempts = 1", "attempts = 4");
    let changes = order(&gateway, "/admin/config/diff", &json!({"text": text})).await;
    let expected = json!([{"path": "routes.fast.attempts", "before": 1, "after": 4}]);
    assert_eq!(changes["changes"], expected);
    order(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    assert_eq!(file(&gateway), with_attempts(&upstream, 4));
    let more = text + "\n[providers.other]\nkind = \"openai\"\napi_key = \"***\"\n";
    let (status, told) = ask(&gateway, "/admin/config/apply", &json!({"text": more})).await;
    assert_eq!(status, 400);
    assert!(told["error"]["message"].as_str().unwrap().contains("providers.other.api_key"));
    let kept = look(&gateway, "/admin/config/generations/2").await;
    assert!(!kept["text"].as_str().unwrap().contains("sk-upstream-up"));
}

#[tokio::test]
async fn a_file_that_nobody_may_write_refuses_what_is_not_ephemeral() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let path = gateway.folder().join("config.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let text = with_attempts(&upstream, 3);
    let (status, told) = ask(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    assert_eq!((status, told["error"]["code"].as_str()), (409, Some("owned_by_file")));
    assert!(told["error"]["message"].as_str().unwrap().contains("`ephemeral`"));
    let body = json!({"text": text, "ephemeral": true});
    let state = order(&gateway, "/admin/config/apply", &body).await;
    assert_eq!((&state["generation"], &state["ephemeral"]), (&json!(2), &json!(true)));
    assert_eq!(file(&gateway), with_attempts(&upstream, 1));
    // What the file says is served again as soon as it is asked for.
    let state = order(&gateway, "/admin/config/reload", &Value::Null).await;
    assert_eq!((&state["generation"], &state["ephemeral"]), (&json!(3), &json!(false)));
}

#[tokio::test]
async fn an_order_made_from_an_older_config_is_refused() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let body = json!({"text": with_attempts(&upstream, 2), "base": 1});
    order(&gateway, "/admin/config/apply", &body).await;
    let (status, told) = ask(&gateway, "/admin/config/apply", &body).await;
    assert_eq!((status, told["error"]["code"].as_str()), (409, Some("conflict")));
    assert_eq!(state(&gateway).await["generation"], 2);
}

#[tokio::test]
async fn commands_do_by_the_admin_api_what_they_say() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    std::fs::write(gateway.folder().join("next.toml"), with_attempts(&upstream, 5)).unwrap();
    let (done, said) = command(&gateway, &["diff", "next.toml"]).await;
    assert_eq!((done, said.trim()), (true, "~ routes.fast.attempts: 1 -> 5"));
    let (done, said) = command(&gateway, &["apply", "next.toml", "--base", "1"]).await;
    assert!(done && said.starts_with("generation 2 is served, and written to "), "{said}");
    let (done, said) = command(&gateway, &["apply", "next.toml", "--base", "1"]).await;
    assert!(!done && said.contains("generation 2 is served, and not 1"), "{said}");
    let (done, said) = command(&gateway, &["rollback"]).await;
    assert!(done && said.starts_with("generation 3 is served"), "{said}");
    assert_eq!(file(&gateway), with_attempts(&upstream, 1));
    let (done, said) = command(&gateway, &["history"]).await;
    let states: Vec<&str> =
        said.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!((done, states), (true, vec!["STATE", "live", "past", "past"]));
    let (_, said) = command(&gateway, &["show"]).await;
    assert!(said.contains("attempts = 1") && !said.contains("sk-upstream"), "{said}");
    let (_, said) = command(&gateway, &["show", "2"]).await;
    assert!(said.contains("attempts = 5"), "{said}");
}
