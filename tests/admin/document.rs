//! The `OpenAPI` document says what the door does, and the door does what the document says.

use std::path::Path;
use std::process::Command;

use super::*;

/// The path with each method, of which it takes those that are listed.
async fn try_method(gateway: &Gateway, method: &str, path: &str, listed: &[&str]) {
    let filled = path.replace("{id}", "none").replace("{route}", "fast");
    let asked = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    // Empty bodies change nothing that is there.
    let answer = operate(gateway, asked, &filled, &json!(null)).await;
    let what = format!("{method} {path}: {}", answer.text());
    if listed.contains(&method) {
        assert!(answer.status < 500 && answer.status != 405, "{what}");
        assert!(!answer.text().contains("nothing at this path"), "{what}");
        return;
    }
    assert_eq!(answer.status, 405, "{what}");
    let allowed = answer.header("allow").unwrap().to_lowercase();
    let mut allowed: Vec<_> = allowed.split(", ").collect();
    let mut listed = listed.to_vec();
    listed.sort_unstable();
    allowed.sort_unstable();
    assert_eq!(allowed, listed, "{path}");
}

#[tokio::test]
async fn every_path_of_the_document_is_answered_and_its_other_methods_are_refused() {
    let (_upstream, gateway) = house("").await;
    let document = look(&gateway, "/admin/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let listed: Vec<_> = operations.as_object().unwrap().keys().map(String::as_str).collect();
        for method in ["get", "post", "put", "patch", "delete"] {
            try_method(&gateway, method, path, &listed).await;
        }
    }
    let nowhere = operate(&gateway, Method::GET, "/admin/nowhere", &json!(null)).await;
    assert_eq!(refusal(&nowhere), code(404, "not_found"));
}

#[tokio::test]
async fn a_validator_of_others_finds_nothing_wrong_with_the_document() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the validator was not asked to run");
        return;
    }
    let (_upstream, gateway) = house("").await;
    let answer = operate(&gateway, Method::GET, "/admin/openapi.json", &json!(null)).await;
    let path = gateway.folder().join("openapi.json");
    std::fs::write(&path, &answer.body).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run.sh");
    let mut command = Command::new(script);
    command.arg("--openapi").arg(path);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
