//! Configs of other gateways, brought here: what comes of each, what is said to be lost, and that
//! the result holds and answers.
//!
//! `SWITCHPOINT_BLESS=1 cargo test --test main import` writes the expectations anew. Read what
//! changed before you keep it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use toml::{Table, Value};

use crate::support::client::chat;
use crate::support::gateway::{ADMIN_KEY, KEY};
use crate::support::replies::ask;
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// In every secret of the fixtures.
const CANARY: &str = "canary";

/// The configs of other gateways, each with its gateway.
fn fixtures() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports");
    let mut found = Vec::new();
    for peer in std::fs::read_dir(root).unwrap() {
        let peer = peer.unwrap();
        for file in std::fs::read_dir(peer.path()).unwrap() {
            let path = file.unwrap().path();
            let ending = path.extension().unwrap_or_default();
            if ending == "yaml" || ending == "json" {
                found.push((peer.file_name().into_string().unwrap(), path));
            }
        }
    }
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    found
}

fn switchpoint(arguments: &[&str], variables: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.env_clear().args(arguments);
    command.envs(variables.iter().map(|name| (name, format!("value-of-{name}"))));
    command.output().unwrap()
}

/// The config and the report that come of a file.
fn import(peer: &str, path: &Path) -> (String, String) {
    let output = switchpoint(&["import", peer, path.to_str().unwrap()], &[]);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{path:?}: {err}");
    (out, err)
}

/// The variables that the config says it reads.
fn variables(config: &str) -> Vec<String> {
    let lines = config.lines().filter_map(|line| line.strip_prefix("#   "));
    lines.map(str::to_owned).collect()
}

#[test]
fn an_imported_config_is_what_was_agreed_and_so_is_its_report() {
    for (peer, path) in fixtures() {
        let (config, report) = import(&peer, &path);
        for (ending, text) in [("toml", config), ("report", report)] {
            let golden = path.with_extension(ending);
            if std::env::var_os("SWITCHPOINT_BLESS").is_some() {
                std::fs::write(&golden, &text).unwrap();
            }
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(text, expected, "{}", golden.display());
        }
    }
}

#[test]
fn no_secret_of_the_other_config_is_printed_anywhere() {
    let mut canaries = 0;
    for (peer, path) in fixtures() {
        let (config, report) = import(&peer, &path);
        assert!(!config.contains(CANARY), "{path:?}: {config}");
        assert!(!report.contains(CANARY), "{path:?}: {report}");
        canaries += std::fs::read_to_string(&path).unwrap().matches(CANARY).count();
    }
    assert!(canaries > 5, "the fixtures have secrets in clear");
}

#[test]
fn every_imported_config_passes_the_check() {
    for (peer, path) in fixtures() {
        let (config, _) = import(&peer, &path);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("switchpoint.toml");
        std::fs::write(&file, &config).unwrap();
        let output = switchpoint(&["check", file.to_str().unwrap()], &variables(&config));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{path:?}: {said}");
    }
}

#[tokio::test]
async fn every_route_of_an_imported_config_answers() {
    for (peer, path) in fixtures() {
        let (config, _) = import(&peer, &path);
        let upstream = Upstream::answering(answer).await;
        let gateway = start(&config, &upstream).await;
        let table: Table = config.parse().unwrap();
        let none = Table::new();
        let routes = table.get("routes").and_then(Value::as_table).unwrap_or(&none);
        for (name, _) in routes.iter().filter(|(_, route)| route.get("when").is_none()) {
            let said = chat(&gateway, ask(name)).await;
            assert_eq!(said.status, 200, "{path:?} {name}: {}", said.text());
            assert!(said.text().contains("moved"), "{path:?} {name}: {}", said.text());
        }
    }
}

#[test]
fn a_file_that_is_no_config_is_refused_without_repeating_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "a: [1, canary\nb: \"canary\n").unwrap();
    let output = switchpoint(&["import", "litellm", file.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is neither JSON nor YAML"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn a_service_account_in_the_place_of_its_path_is_shown_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let entry = "model_list: [{model_name: v, litellm_params: {model: vertex_ai/gemini-2.5-pro, \
                 vertex_project: p, vertex_location: us-east5, \
                 vertex_credentials: os.environ/ACCOUNT}}]";
    std::fs::write(&file, entry).unwrap();
    let (config, report) = import("litellm", &file);
    assert!(report.contains("if ACCOUNT holds the account itself"), "{report}");
    let config_file = folder.path().join("switchpoint.toml");
    std::fs::write(&config_file, config).unwrap();
    for account in ["{\"private_key\": \"canary\"}", "canary/not/there.json"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.env_clear().env("ACCOUNT", account).arg("check").arg(&config_file);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("providers.vertex.credentials: "), "{said}");
        assert!(!said.contains(CANARY), "{said}");
    }
}

/// A gateway on this config, with all its providers at `upstream`.
async fn start(config: &str, upstream: &Upstream) -> Gateway {
    let mut table: Table = config.parse().unwrap();
    let providers = table.get_mut("providers").and_then(Value::as_table_mut).unwrap();
    for (_, provider) in providers.iter_mut() {
        let written = provider.as_table().unwrap();
        let mut moved = Table::new();
        for key in ["kind", "region", "project", "location", "models", "limits"] {
            moved.extend(written.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        moved.insert("base_url".to_owned(), format!("http://{}", upstream.address).into());
        moved.insert("api_key".to_owned(), "sk-upstream".into());
        *provider = moved.into();
    }
    let mut server = Table::new();
    server.insert("listen".to_owned(), "127.0.0.1:0".into());
    table.insert("server".to_owned(), server.clone().into());
    server.insert("key".to_owned(), ADMIN_KEY.into());
    table.insert("admin".to_owned(), server.into());
    table.insert(
        "store".to_owned(),
        Table::from_iter([("url".to_owned(), "memory:".into())]).into(),
    );
    let keys = table.entry("keys").or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
    keys.insert("test".to_owned(), Table::from_iter([("secret".to_owned(), KEY.into())]).into());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), table.to_string()).unwrap();
    let variables: Vec<(String, String)> = variables(config)
        .into_iter()
        .map(|name| (name.clone(), format!("value-of-{name}")))
        .collect();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Gateway::run_with(folder, "", &variables).await
}

/// The same words in the API that the path is of.
fn answer(request: &Request) -> Script {
    let path = request.path.split('?').next().unwrap_or_default();
    let text = "moved";
    let body = if path.ends_with("/messages") {
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
            "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 1}})
    } else if path.ends_with("/converse") {
        json!({"output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn", "metrics": {"latencyMs": 1},
            "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}})
    } else if path.contains(":generateContent") {
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]},
            "finishReason": "STOP", "index": 0}], "modelVersion": "m",
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1,
            "totalTokenCount": 4}})
    } else if path.ends_with("/v2/chat") {
        json!({"id": "c1", "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
            "usage": {"tokens": {"input_tokens": 3, "output_tokens": 1}}})
    } else {
        json!({"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
    };
    Script::json(200, &body.to_string())
}
