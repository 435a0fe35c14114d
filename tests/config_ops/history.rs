//! The generations of the config that there have been, and the way back to them.

use std::path::Path;

use super::*;

#[tokio::test]
async fn what_is_applied_is_served_and_written_and_the_history_says_by_whom() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let text = with_attempts(&upstream, 2);
    let state = order(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    assert_eq!(state["generation"], 2);
    assert_eq!(file(&gateway), text);
    let expected = [entry(2, "apply", "admin", "live"), entry(1, "start", "start", "past")];
    assert_eq!(history(&gateway).await, expected);
    let trail = look(&gateway, "/admin/audit?what=config.apply").await;
    assert_eq!(trail["data"][0]["after"]["generation"], 2, "{trail:#}");
}

#[tokio::test]
async fn a_rollback_takes_up_the_config_before_and_its_own_can_be_taken_back() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let (status, _) = ask(&gateway, "/admin/config/rollback", &json!({})).await;
    assert_eq!(status, 404, "there is nothing before the first");
    for attempts in [2, 3] {
        let text = with_attempts(&upstream, attempts);
        order(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    }
    order(&gateway, "/admin/config/rollback", &json!({})).await;
    assert_eq!(file(&gateway), with_attempts(&upstream, 2));
    order(&gateway, "/admin/config/rollback", &json!({"generation": 1})).await;
    assert_eq!(file(&gateway), with_attempts(&upstream, 1));
    let told = look(&gateway, "/admin/config/generations").await;
    let of: Vec<&Value> = told["data"].as_array().unwrap().iter().map(|row| &row["of"]).collect();
    assert_eq!(of, [&json!(1), &json!(2), &Value::Null, &Value::Null, &Value::Null]);
    let (status, _) = ask(&gateway, "/admin/config/rollback", &json!({"generation": 99})).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_change_by_hand_wins_over_what_was_applied_and_the_history_shows_both() {
    let upstream = upstream().await;
    let gateway = house(&upstream).await;
    let text = with_attempts(&upstream, 2);
    order(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    let path = gateway.folder().join("config.toml");
    std::fs::write(path, with_attempts(&upstream, 7)).unwrap();
    let state = becomes(&gateway, "the change by hand", |state| state["generation"] == 3).await;
    assert!(state["text"].as_str().unwrap().contains("attempts = 7"));
    let expected = [
        entry(3, "file", "file", "live"),
        entry(2, "apply", "admin", "past"),
        entry(1, "start", "start", "past"),
    ];
    assert_eq!(history(&gateway).await, expected);
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_generation_unless_the_file_has_changed() {
    let (upstream, kept) = (upstream().await, tempfile::tempdir().unwrap());
    let text = |attempts: u32| with_store(&upstream, kept.path(), attempts);
    let gateway = run(text(1)).await;
    order(&gateway, "/admin/config/apply", &json!({"text": text(2)})).await;
    drop(gateway);
    let gateway = run(text(2)).await;
    assert_eq!(state(&gateway).await["generation"], 2, "nothing has changed");
    drop(gateway);
    let gateway = run(text(3)).await;
    assert_eq!(state(&gateway).await["generation"], 3);
    let rows = history(&gateway).await;
    let states: Vec<(u64, &str)> = rows.iter().map(|row| (row.0, row.3.as_str())).collect();
    assert_eq!(states, [(3, "live"), (2, "past"), (1, "past")]);
    // The secrets of earlier generations were not kept, and are those that are served.
    order(&gateway, "/admin/config/rollback", &json!({"generation": 1})).await;
    assert_eq!(file(&gateway), text(1));
}

/// What `with_attempts` says, with a history that outlives the process.
fn with_store(upstream: &Upstream, folder: &Path, attempts: u32) -> String {
    let store = format!("[store]\nurl = \"sqlite:{}/state.db\"\n", folder.display());
    let route = route("fast", &["up/a"], &format!("attempts = {attempts}"));
    config("", &(provider("up", upstream) + &route + &store))
}

async fn run(text: String) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Gateway::run(folder, "").await
}

#[tokio::test]
async fn a_number_is_given_out_once_and_a_trial_ends_with_its_process() {
    let (upstream, kept) = (upstream().await, tempfile::tempdir().unwrap());
    let text = |attempts: u32| with_store(&upstream, kept.path(), attempts);
    let gateway = run(text(1)).await;
    let trial = json!({"text": text(2), "canary": {"share": "10%", "for": "1h"}});
    order(&gateway, "/admin/config/apply", &trial).await;
    drop(gateway);
    let gateway = run(text(1)).await;
    let state = order(&gateway, "/admin/config/apply", &json!({"text": text(3)})).await;
    assert_eq!(state["generation"], 3);
    let expected = [
        entry(3, "apply", "admin", "live"),
        entry(2, "apply", "admin", "aborted"),
        entry(1, "start", "start", "past"),
    ];
    assert_eq!(history(&gateway).await, expected);
    let told = look(&gateway, "/admin/config/generations/2").await;
    assert_eq!(told["why"], "its process ended before the trial did");
    assert_eq!(told["text"].as_str().unwrap().matches("attempts = 2").count(), 1);
}

#[tokio::test]
async fn only_the_owner_may_apply_and_operators_may_go_back() {
    let upstream = upstream().await;
    let key = "[keys.op]\nsecret = \"sk-operator\"\nrole = \"operator\"\n";
    let gateway = Gateway::before(&upstream, key).await;
    let text = file(&gateway) + "\n# another\n";
    for (path, body, status) in [
        ("/admin/config/apply", json!({"text": text}), 403),
        ("/admin/config/check", json!({"text": text}), 403),
        ("/admin/config/diff", json!({"text": text}), 200),
        ("/admin/config/rollback", json!({}), 404),
    ] {
        let answer = post(gateway.admin, path, "sk-operator", body.to_string()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}
