//! What the door to tools promises, against a server on a real socket.

mod door;
mod reach;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Failure, Invocation, Kit, Net, Output, Toolbox};
use crate::config::{self, Config, StoreUrl};
use crate::store::Store;
use crate::telemetry::Metrics;

/// The tools of a config.
fn toolbox(text: &str) -> Toolbox {
    rebuilt(text, &Toolbox::default())
}

fn rebuilt(text: &str, before: &Toolbox) -> Toolbox {
    let config = Config::parse(text, Path::new("switchpoint.toml"), &[]).unwrap();
    let store = Store::open(&config::Store::at(StoreUrl::Memory)).unwrap();
    let (net, metrics) = (Net::alone(), Metrics::new().unwrap());
    let kit = Kit { config: &config, net: &net, store: &store, metrics: &metrics, turns: None };
    Toolbox::build(&kit, before).unwrap()
}

fn invocation(args: Value) -> Invocation {
    Invocation {
        args,
        idempotency_key: "key-1".to_owned(),
        user: Some(Arc::from("ann")),
        passed: crate::canon::Passed::default(),
        deadline: Instant::now() + Duration::from_secs(20),
        answer: None,
        listener: None,
    }
}

async fn call(toolbox: &Toolbox, name: &str, args: Value) -> Result<Output, Failure> {
    toolbox.get(name).unwrap().call(&invocation(args)).await
}

#[test]
fn no_two_names_are_one_for_models() {
    let names = ["s.x", "s__x", "s._x", "s_.x", "s___x", "s_x", "s.x.y", "s.x__y", "s__x.y", "s x"];
    let aliases: std::collections::BTreeSet<String> =
        names.into_iter().map(super::alias_of).collect();
    assert_eq!(aliases.len(), names.len(), "{aliases:?}");
    assert!(["s__x", "s_x", "s__x__y"].iter().all(|it| aliases.contains(*it)), "{aliases:?}");
}
