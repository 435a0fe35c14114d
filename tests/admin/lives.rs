//! Keys from their first call to their last, and what the trail says of them.

use serde_json::Value;

use super::*;

async fn patch(gateway: &Gateway, path: &str, body: Value) -> Value {
    done(gateway, Method::PATCH, path, body).await
}

#[tokio::test]
async fn a_key_is_made_used_rotated_and_revoked() {
    let (_upstream, gateway) = house("[teams.search]\n").await;
    let terms = json!({"team": "search", "routes": ["fast"], "tags": {"env": "test"},
        "budget": [{"tokens": 1_000_000, "window": "1d"}]});
    let made = operate(&gateway, Method::POST, "/admin/keys", &terms).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(id.starts_with("key_") && secret.starts_with("sk-sp-"), "{made:#}");
    assert_eq!((&made["team"], &made["source"]), (&json!("search"), &json!("api")));
    assert_eq!((&made["routes"], &made["tags"]["env"]), (&json!(["fast"]), &json!("test")));

    let answer = chat(&gateway, secret).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let call = look(&gateway, &format!("/admin/calls?key={id}")).await["data"][0].clone();
    assert_eq!(call["id"], answer.header("x-request-id").unwrap());
    assert_eq!((&call["team"], &call["input_tokens"]), (&json!("search"), &json!(11)));
    assert_eq!(call["tags"], json!({"env": "test"}));
    let sums = look(&gateway, &format!("/admin/usage?group_by=key&key={id}")).await;
    assert_eq!(sums["data"][0]["total_tokens"], 15, "{sums:#}");
    let own = client::get(gateway.address, "/v1/me/usage", secret).await.json();
    assert_eq!((&own["key"], &own["budgets"][0]["used"]), (&json!(id), &json!(15)), "{own:#}");

    let path = format!("/admin/keys/{id}");
    let rotated = make(&gateway, &format!("{path}/rotate"), json!({"overlap": "1h"})).await;
    let second = rotated["secret"].as_str().unwrap();
    assert_ne!(second, secret);
    for secret in [secret, second] {
        assert_eq!(chat(&gateway, secret).await.status, 200);
    }
    let sums = look(&gateway, &format!("/admin/usage?group_by=key&key={id}")).await;
    assert_eq!(sums["data"][0]["calls"], 3, "both secrets are one key: {sums:#}");

    let ended = done(&gateway, Method::DELETE, &path, Value::Null).await;
    assert_eq!(ended["deleted"], true);
    for secret in [secret, second] {
        assert_eq!(refusal(&chat(&gateway, secret).await), code(401, "key_revoked"));
    }
    assert!(look(&gateway, &path).await["revoked_at"].is_string());
    assert_eq!(
        refusal(&operate(&gateway, Method::GET, "/admin/keys/key_none", &Value::Null).await),
        code(404, "not_found")
    );
    for text in [made.to_string(), look(&gateway, "/admin/audit").await.to_string()] {
        assert!(!text.contains(second), "a secret is shown once");
    }
}

#[tokio::test]
async fn a_rotation_without_overlap_ends_the_old_secret_at_once() {
    let (_upstream, gateway) = house("").await;
    let made = make(&gateway, "/admin/keys", json!({})).await;
    let path = format!("/admin/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = make(&gateway, &path, json!({"overlap": "0s"})).await;
    assert_eq!(chat(&gateway, made["secret"].as_str().unwrap()).await.status, 401);
    assert_eq!(chat(&gateway, rotated["secret"].as_str().unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_create_that_is_sent_twice_makes_one() {
    let (_upstream, gateway) = house("").await;
    let key = format!("Bearer {ADMIN_KEY}");
    let send = async |body: Value| {
        let headers = [("authorization", key.as_str()), ("idempotency-key", "first-try")];
        let body = body.to_string();
        send(gateway.admin, Method::POST, "/admin/keys", &headers, &body).await
    };
    let first = send(json!({"routes": ["fast"]})).await;
    let again = send(json!({"routes": ["fast"]})).await;
    assert_eq!((first.status, again.status), (201, 200), "{}", again.text());
    let (first, again) = (first.json(), again.json());
    assert_eq!(first["id"], again["id"]);
    assert_eq!((&again["secret"], &again["replayed"]), (&Value::Null, &json!(true)));
    assert_eq!(refusal(&send(json!({"routes": []})).await), code(409, "conflict"));
    let list = look(&gateway, "/admin/keys").await;
    let made = list["data"].as_array().unwrap().iter().filter(|one| one["source"] == "api");
    assert_eq!(made.count(), 1, "{list:#}");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_holds_at_once() {
    let (_upstream, gateway) = house("").await;
    let terms = json!({"routes": ["fast"], "limits": {"requests": "100/m", "concurrency": 3}});
    let made = make(&gateway, "/admin/keys", terms).await;
    let (secret, id) = (made["secret"].as_str().unwrap(), made["id"].as_str().unwrap());
    let path = format!("/admin/keys/{id}");
    let changed = patch(&gateway, &path, json!({"limits": {"requests": "1/h"}})).await;
    assert_eq!(changed["limits"], json!({"requests": "1/h", "concurrency": 3}));
    assert_eq!(changed["routes"], json!(["fast"]));
    assert_eq!(chat(&gateway, secret).await.status, 200);
    assert_eq!(refusal(&chat(&gateway, secret).await), code(429, "rate_limited"));
    let changed = patch(&gateway, &path, json!({"limits": null, "routes": []})).await;
    assert_eq!((changed.get("limits"), &changed["routes"]), (None, &json!([])), "{changed:#}");
    assert_eq!(refusal(&chat(&gateway, secret).await).0, 403);
}

#[tokio::test]
async fn teams_and_users_are_made_have_members_and_are_removed() {
    let (_upstream, gateway) = house("").await;
    let budget = json!([{"tokens": 15, "window": "1d"}]);
    make(&gateway, "/admin/orgs", json!({"id": "acme"})).await;
    make(&gateway, "/admin/teams", json!({"id": "search", "org": "acme", "budget": budget})).await;
    make(&gateway, "/admin/users", json!({"id": "ann", "team": "search"})).await;
    let made = make(&gateway, "/admin/keys", json!({"user": "ann"})).await;
    assert_eq!(made["team"], "search", "its user's");
    let secret = made["secret"].as_str().unwrap();
    let refused = refusal(&chat(&gateway, secret).await);
    assert_eq!(refused, code(429, "budget_exceeded"), "the estimate is above 15 tokens");
    let more = json!({"tokens": 1_000_000});
    let topped = make(&gateway, "/admin/teams/search/topup", more).await;
    assert_eq!(topped["budget"]["limit"], 1_000_015, "{topped:#}");
    let trail = look(&gateway, "/admin/audit?what=team.topup").await;
    let noted = json!({"unit": "tokens", "window": "1d", "added": 1_000_000, "limit": 1_000_015});
    assert_eq!(trail["data"][0]["after"], noted, "{trail:#}");
    assert_eq!(chat(&gateway, secret).await.status, 200);

    let taken = operate(&gateway, Method::POST, "/admin/teams", &json!({"id": "search"})).await;
    assert_eq!(refusal(&taken), code(409, "conflict"));
    let busy = operate(&gateway, Method::DELETE, "/admin/teams/search", &Value::Null).await;
    assert_eq!(refusal(&busy), code(409, "conflict"));
    let members = look(&gateway, "/admin/users?team=search").await;
    assert_eq!(members["data"][0]["id"], "ann", "{members:#}");
    let key = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    for path in [&key, "/admin/users/ann", "/admin/teams/search", "/admin/orgs/acme"] {
        done(&gateway, Method::DELETE, path, Value::Null).await;
    }
    let gone = operate(&gateway, Method::GET, "/admin/teams/search", &Value::Null).await;
    assert_eq!(refusal(&gone), code(404, "not_found"));
}

#[tokio::test]
async fn what_stands_in_the_file_is_shown_and_left_to_the_file() {
    let (_upstream, gateway) = house("[teams.search]\n[users.ann]\nteam = \"search\"\n").await;
    for path in ["/admin/keys/test", "/admin/teams/search", "/admin/users/ann"] {
        let shown = look(&gateway, path).await;
        assert_eq!(shown["source"], "file", "{shown:#}");
        assert!(!shown.to_string().contains(KEY), "{shown:#}");
        for (method, body) in
            [(Method::PATCH, json!({"limits": {}})), (Method::DELETE, json!(null))]
        {
            let answer = operate(&gateway, method, path, &body).await;
            assert_eq!(refusal(&answer), code(409, "owned_by_file"), "{path}");
        }
    }
    let rotated = operate(&gateway, Method::POST, "/admin/keys/test/rotate", &json!({})).await;
    assert_eq!(refusal(&rotated), code(409, "owned_by_file"));
}

#[tokio::test]
async fn a_bad_body_is_refused_with_what_is_wrong_with_it() {
    let (_upstream, gateway) = house("").await;
    let key = format!("Bearer {ADMIN_KEY}");
    let create = async |body: &str| {
        let headers = [("authorization", key.as_str())];
        send(gateway.admin, Method::POST, "/admin/keys", &headers, body).await
    };
    for (body, hint) in [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"{"limitz":{}}"#, "limits"),
        (r#"{"limits":{"request":"1/m"}}"#, "requests"),
        (r#"{"routes":["fsat"]}"#, "fast"),
        (r#"{"team":"none"}"#, "no team"),
        (r#"{"secret":"sk-mine"}"#, "secret"),
        (r#"{"id":7}"#, "must be text"),
        (r#"{"role":"king"}"#, "owner"),
    ] {
        let answer = create(body).await;
        assert_eq!(refusal(&answer), code(400, "invalid_request"), "{body}");
        assert!(answer.text().contains(hint), "{body}: {}", answer.text());
    }
    let large = create(&format!("{{\"tags\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20))).await;
    assert_eq!(large.status, 413);
    for (path, body, hint) in [
        ("/admin/keys/test/rotate", json!({"overlap": "soon"}), "24h"),
        ("/admin/keys/test/rotate", json!({"overlop": "1h"}), "overlap"),
        ("/admin/keys/test/topup", json!({}), "either `tokens` or `usd`"),
        ("/admin/keys/test/topup", json!({"usd": -1}), "above 0"),
        ("/admin/keys/test/topup", json!({"usd": 1}), "window"),
        ("/admin/keys?limitt=1", json!({}), "unknown"),
    ] {
        let answer = operate(&gateway, Method::POST, path, &body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(answer.text().contains(hint), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_trail_says_who_changed_what_from_what_to_what() {
    let (_upstream, gateway) =
        house("[keys.boss]\nsecret = \"sk-boss\"\nrole = \"operator\"\n").await;
    let made = make(&gateway, "/admin/keys", json!({"routes": ["fast"]})).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/admin/keys/{id}");
    let boss = [("authorization", "Bearer sk-boss")];
    let body = json!({"limits": {"requests": "5/m"}}).to_string();
    let changed = send(gateway.admin, Method::PATCH, &path, &boss, &body).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    done(&gateway, Method::DELETE, &path, Value::Null).await;

    let trail = look(&gateway, &format!("/admin/audit?subject=key:{id}")).await;
    let rows = trail["data"].as_array().unwrap();
    let whats: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["key.revoke", "key.change", "key.create"], "{trail:#}");
    let change = &rows[1];
    assert_eq!(change["who"], "boss");
    assert_eq!(change["before"]["routes"], json!(["fast"]), "{change:#}");
    assert_eq!(change["before"].get("limits"), None, "{change:#}");
    assert_eq!(change["after"]["limits"], json!({"requests": "5/m"}), "{change:#}");

    let by = look(&gateway, "/admin/audit?who=boss").await;
    assert_eq!(by["data"].as_array().unwrap().len(), 1, "{by:#}");
    let first = look(&gateway, &format!("/admin/audit?subject=key:{id}&limit=2")).await;
    let next = first["next"].as_str().unwrap();
    let second =
        look(&gateway, &format!("/admin/audit?subject=key:{id}&limit=2&after={next}")).await;
    assert_eq!(second["data"][0]["what"], "key.create", "{second:#}");
    assert_eq!(second["next"], Value::Null);
    let later = look(&gateway, "/admin/audit?from=2100-01-01").await;
    assert_eq!(later["data"], json!([]));
    let verdict = look(&gateway, "/admin/audit/verify").await;
    assert_eq!((&verdict["ok"], &verdict["rows"]), (&json!(true), &json!(3)), "{verdict:#}");
}

#[tokio::test]
async fn a_trail_that_was_tampered_with_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trail.db");
    let store = format!("[store]\nurl = \"sqlite:{}\"\n", file.display());
    let (_upstream, gateway) = house(&store).await;
    for _ in 0..3 {
        make(&gateway, "/admin/keys", json!({})).await;
    }
    let verify = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.args(["audit", "verify", "--config"]).arg(gateway.folder().join("config.toml"));
        command.output().unwrap()
    };
    let whole = verify();
    assert!(whole.status.success(), "{whole:?}");
    assert!(String::from_utf8_lossy(&whole.stdout).contains("3 changes"), "{whole:?}");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute("UPDATE audit SET who = 'nobody' WHERE position = 2", []).unwrap();
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert!(String::from_utf8_lossy(&broken.stderr).contains("change 2"), "{broken:?}");
    let verdict = look(&gateway, "/admin/audit/verify").await;
    assert_eq!((&verdict["ok"], &verdict["broken_at"]), (&json!(false), &json!("2")));
}

#[tokio::test]
async fn commands_about_keys_go_to_the_gateway_that_the_environment_names() {
    let (_upstream, gateway) = house("").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let config = "[store]\nurl = \"sqlite:own.db\"\n";
    std::fs::write(elsewhere.path().join("switchpoint.toml"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.args(["keys", "create", "--id", "ci"]).current_dir(elsewhere.path()).env_clear();
    command.env("SWITCHPOINT_ADMIN_URL", format!("http://{}", gateway.admin));
    command.env("SWITCHPOINT_ADMIN_KEY", ADMIN_KEY);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(look(&gateway, "/admin/keys/ci").await["source"], "api");
    assert!(!elsewhere.path().join("own.db").exists());
}

#[tokio::test]
async fn pages_of_keys_miss_none_and_repeat_none() {
    let (_upstream, gateway) = house("").await;
    let mut made = vec!["test".to_owned()];
    for _ in 0..5 {
        let key = make(&gateway, "/admin/keys", json!({})).await;
        made.push(key["id"].as_str().unwrap().to_owned());
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = look(&gateway, &format!("/admin/keys?limit=2{after}")).await;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    made.sort();
    seen.sort();
    assert_eq!(seen, made);
}
