//! Servers that are children and do not want to end.

use super::*;

/// The server of a folder ignores that it is told to end, and so does its own child.
fn stubborn() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stubborn"), "").unwrap();
    folder
}

#[tokio::test]
async fn a_child_that_ignores_its_end_is_killed_with_all_that_it_has_started() {
    let folder = stubborn();
    let upstream = Upstream::answering(|_| crate::support::Script::json(200, "{}")).await;
    let with = sections(&upstream, &small("small", folder.path(), ""), ALL);
    let gateway = Gateway::start("", &with).await;
    until("its own child is there", || children(folder.path()).len() == 2).await;
    Session::open(&gateway).await.sees("small__echo").await;
    assert_eq!(gateway.reload(&sections(&upstream, "", "")).await.status, 200);
    until("nobody is left", || children(folder.path()).is_empty()).await;
    assert!(folder.path().join("told").exists(), "it was told to end before");
    // So it is when the gateway ends.
    assert_eq!(gateway.reload(&with).await.status, 200);
    until("they are there again", || children(folder.path()).len() == 2).await;
    Session::open(&gateway).await.sees("small__echo").await;
    drop(gateway);
    until("nobody is left", || children(folder.path()).is_empty()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_child_that_ignores_its_end_does_not_outlive_a_gateway_that_is_killed() {
    let folder = stubborn();
    let (_upstream, gateway) = house(&small("small", folder.path(), ""), ALL).await;
    until("its own child is there", || children(folder.path()).len() == 2).await;
    Session::open(&gateway).await.sees("small__echo").await;
    gateway.kill();
    until("nobody is left", || children(folder.path()).is_empty()).await;
    assert!(folder.path().join("told").exists(), "it was told to end before");
}

#[tokio::test]
async fn a_line_that_is_no_answer_ends_the_call_that_it_can_only_be_for() {
    let folder = tempfile::tempdir().unwrap();
    let tools = small("small", folder.path(), "max_result = \"1MiB\"\ntimeout = \"10m\"");
    let (_upstream, gateway) = house(&tools, ALL).await;
    let session = Session::open(&gateway).await;
    session.sees("small__loud").await;
    let before = children(folder.path());
    let told = session.text("small__loud", json!({})).await;
    assert!(told.contains("output_invalid") && told.contains("max_result"), "{told}");
    let told = session.text("small__cut", json!({})).await;
    assert!(told.contains("output_invalid") && told.contains("not MCP"), "{told}");
    assert_eq!(session.text("small__echo", json!({"text": "still here"})).await, "still here");
    assert_eq!(children(folder.path()), before, "it was not started again");
}
