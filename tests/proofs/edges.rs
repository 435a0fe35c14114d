//! Calls that cross the end of a window all at once stay within the limit on both sides of it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::task::JoinSet;

use super::apis::Api;
use super::{key, ledger, settled, store};
use crate::support::client::{self, CHAT};
use crate::support::gateway::{Gateway, provider};
use crate::support::{Upstream, within};

const MINUTE: Duration = Duration::from_mins(1);

fn into_the_minute() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_secs(since.as_secs() % 60) + Duration::from_nanos(since.subsec_nanos().into())
}

async fn ask(address: SocketAddr) -> u16 {
    let said = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "up/m", "max_tokens": 4, "messages": said}).to_string();
    client::post(address, CHAT, "sk-ci", body).await.status
}

/// Takes up to a minute, since no window is shorter.
#[tokio::test]
async fn calls_at_the_edge_of_a_window_never_exceed_either() {
    if std::env::var_os("SWITCHPOINT_TEST_SLOW").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SLOW is not 1: no edge of a minute was waited for");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(|_| Api::Chat.whole((11, 4))).await;
    // Room for ten of them if each used all that it may; each uses 15.
    let most = 150;
    let budget = format!("budget = [{{ tokens = {most}, window = \"1m\" }}]");
    let sections = [store(folder.path()), provider("up", &upstream), key("ci", &budget)].concat();
    let gateway = Gateway::start("", &sections).await;
    let last = Duration::from_millis(58_500);
    within(2 * MINUTE, "the end of the minute", || (last..MINUTE).contains(&into_the_minute()))
        .await;
    // The waves go on until the next minute is well under way.
    let mut answered = 0;
    while into_the_minute() > last || into_the_minute() < Duration::from_millis(700) {
        let mut wave = JoinSet::new();
        (0..100).for_each(|_| drop(wave.spawn(ask(gateway.address))));
        answered += wave.join_all().await.into_iter().filter(|status| *status == 200).count();
    }
    let last = settled(&gateway, "ci").await["used"].as_u64().unwrap();
    gateway.stop();
    let rows = ledger(folder.path());
    let spent: u64 = rows.iter().map(|row| row.counted).sum();
    assert_eq!(spent, 15 * answered as u64);
    let first = spent - last;
    assert!(0 < last && last <= most && 0 < first && first <= most, "{first} and {last}");
}
