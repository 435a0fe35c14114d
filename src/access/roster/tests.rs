//! What a roster promises, whatever is changed around a key.

use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::*;
use crate::config::entry;
use crate::error::Kind as Fault;

fn record(kind: Kind, id: &str, settings: &Json) -> Record {
    Record {
        kind,
        id: id.into(),
        terms: entry::read(kind, settings).ok(),
        created_at: SystemTime::UNIX_EPOCH,
        changed_at: SystemTime::UNIX_EPOCH,
        ended_at: None,
        secrets: vec![Mark { digest: [7; 32], valid_until: None }],
        has_past: false,
        version: 1,
    }
}

fn found(roster: &Roster) -> Result<Option<Arc<Principal>>, Fault> {
    roster.find(&[7; 32], Timestamp::UNIX_EPOCH).map_err(|error| error.kind)
}

#[test]
fn a_reload_keeps_what_was_made_and_looks_for_its_people_anew() {
    let roster = Roster::default();
    let budget = json!({"team": "search", "budget": [{"tokens": 5, "window": "none"}]});
    roster.take(vec![record(Kind::Key, "key_1", &budget)]);
    // Nobody is let in by a team that is not there: whose limits would hold?
    assert_eq!(found(&roster).unwrap_err(), Fault::NotAllowed);
    let file = |text| Config::parse(text, Path::new(""), &[]).unwrap();
    roster.adopt(&file("[teams.search]\nlimits = { concurrency = 1 }\n"));
    let before = found(&roster).unwrap().unwrap();
    assert_eq!(before.tab.accounts.len(), 2);
    roster.adopt(&file("[teams.search]\n[keys.other]\nsecret = \"x\"\n"));
    let after = found(&roster).unwrap().unwrap();
    assert_eq!(after.tab.accounts.len(), 1);
    assert!(Arc::ptr_eq(&before.tab.accounts[0], &after.tab.accounts[0]));
    // The file takes its name.
    roster.adopt(&file("[teams.search]\n[keys.key_1]\nsecret = \"x\"\n"));
    assert_eq!(found(&roster).unwrap_err(), Fault::NotAllowed);
}

#[test]
fn terms_that_cannot_be_read_let_nobody_in() {
    let roster = Roster::default();
    roster.take(vec![record(Kind::Key, "key_1", &json!({}))]);
    assert!(found(&roster).unwrap().is_some());
    roster.take(vec![record(Kind::Key, "key_1", &json!({"of": "tomorrow"}))]);
    assert!(found(&roster).unwrap().is_none());
}

#[test]
fn only_what_has_a_past_is_to_be_told_of_it() {
    let roster = Roster::default();
    let budget = json!({"budget": [{"tokens": 5, "window": "1d"}]});
    let new = roster.take(vec![record(Kind::Key, "key_1", &budget)]);
    assert!(new.is_empty());
    let account = Arc::clone(&found(&roster).unwrap().unwrap().tab.accounts[0]);
    assert_eq!(account.unseeded(), []);
    let more = json!({"budget": [{"tokens": 5, "window": "1d"}, {"usd": 1, "window": "1d"}]});
    let changed = roster.take(vec![record(Kind::Key, "key_1", &more)]);
    assert!(Arc::ptr_eq(&changed[0], &account));
    assert_eq!(account.unseeded().len(), 1);
    let old = Record {
        secrets: vec![Mark { digest: [8; 32], valid_until: None }],
        has_past: true,
        ..record(Kind::Key, "key_2", &budget)
    };
    assert_eq!(roster.take(vec![old])[0].unseeded().len(), 1);
}
