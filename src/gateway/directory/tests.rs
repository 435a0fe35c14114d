//! Keys from their making to their end, by the calls that they let in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value as Json, json};

use super::*;
use crate::access::account::{Demand, Moment, reserve};
use crate::config::{Config, Store as Settings, StoreUrl};
use crate::error::{Error, Kind as Fault};
use crate::gateway::{Gateway, Snapshot};
use crate::net::client::Client;
use crate::store::{AuditFilter, Store};
use crate::telemetry::{Format, Log, Telemetry};

const FILE: &str = r#"
[providers.demo]
kind = "demo"
[routes.fast]
targets = ["demo/demo"]
[keys.ci]
hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
team = "search"
[teams.search]
org = "acme"
budget = [{ tokens = 1000, window = "none" }]
[teams.rival]
[orgs.acme]
"#;

fn config() -> Config {
    Config::parse(FILE, Path::new("switchpoint.toml"), &["demo"]).unwrap()
}

fn house_on(store: Store) -> Arc<Gateway> {
    let client = Client::new(1);
    let snapshot = Snapshot::build(config(), 1, (&client, Arc::default(), Arc::default())).unwrap();
    let log = Log::start(Format::Text, false, Box::new(std::io::sink())).unwrap();
    Gateway::new(snapshot, client, store, Telemetry::new(log).unwrap())
}

fn house() -> Arc<Gateway> {
    house_on(Store::open(&Settings::at(StoreUrl::Memory)).unwrap())
}

fn owner() -> Actor {
    Actor::owner("ann")
}

fn actor(role: Role, team: Option<&str>) -> Actor {
    Actor { name: "bob".to_owned(), role, team: team.map(ToOwned::to_owned) }
}

fn draft(id: Option<&str>, settings: Json) -> Draft {
    Draft { id: id.map(ToOwned::to_owned), settings, idempotency: None }
}

async fn key(house: &Gateway, settings: Json) -> (String, Secret) {
    let created = house.create_entry(&owner(), Kind::Key, draft(None, settings)).await.unwrap();
    (created.entry.id, created.secret.unwrap())
}

/// Whom a secret lets in, or why it does not.
fn call(house: &Gateway, secret: &Secret) -> Result<crate::access::Caller, Fault> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(secret.expose()).unwrap());
    house.snapshot().access.admit(&headers, None).map_err(|error| error.kind)
}

fn fault<T>(result: Result<T, Error>) -> Fault {
    result.err().expect("it is refused").kind
}

#[tokio::test]
async fn a_key_lets_in_from_when_it_is_made_until_it_is_revoked() {
    let house = house();
    let settings = json!({"team": "search", "routes": ["fast"], "tags": {"a": "b"}});
    let (id, secret) = key(&house, settings.clone()).await;
    assert!(id.starts_with("key_") && secret.expose().starts_with("sk-sp-"));
    let caller = call(&house, &secret).unwrap();
    assert_eq!(&**caller.key(), id);
    assert_eq!(caller.team().map(|team| &**team), Some("search"));
    assert_eq!(caller.org().map(|org| &**org), Some("acme"));
    assert!(caller.may_call("fast") && !caller.may_call("slow"));
    assert_eq!(house.entry(&owner(), Kind::Key, &id).unwrap().settings, settings);
    house.revoke_key(&owner(), &id).await.unwrap();
    assert_eq!(call(&house, &secret).unwrap_err(), Fault::KeyRevoked);
    assert!(house.entry(&owner(), Kind::Key, &id).unwrap().revoked_at.is_some());
    assert_eq!(fault(house.revoke_key(&owner(), &id).await), Fault::Conflict);
}

#[tokio::test]
async fn both_secrets_of_a_rotated_key_spend_from_one_account() {
    let house = house();
    let budget = json!({"budget": [{"tokens": 10, "window": "none"}]});
    let (id, old) = key(&house, budget).await;
    let before = call(&house, &old).unwrap();
    let rotated = house.rotate_key(&owner(), &id, Duration::from_hours(1)).await.unwrap();
    assert_eq!(rotated.entry.rotating_until.len(), 1);
    let new = rotated.secret.unwrap();
    let (one, other) = (call(&house, &old).unwrap(), call(&house, &new).unwrap());
    for caller in [&one, &other] {
        assert!(Arc::ptr_eq(&caller.tab().accounts[0], &before.tab().accounts[0]));
    }
    let demand = Demand { tokens: 8, nanos: 0, priced: true };
    let hold = reserve(&one.tab().accounts, demand, Moment::now()).unwrap();
    reserve(&other.tab().accounts, demand, Moment::now()).unwrap_err();
    drop(hold);
    house.rotate_key(&owner(), &id, Duration::ZERO).await.unwrap();
    assert_eq!(call(&house, &old).unwrap_err(), Fault::ExpiredKey);
    assert_eq!(call(&house, &new).unwrap_err(), Fault::ExpiredKey);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_counters_stay() {
    let house = house();
    let terms = json!({"limits": {"concurrency": 3}, "budget": [{"tokens": 10, "window": "1d"}]});
    let (id, secret) = key(&house, terms).await;
    let demand = Demand { tokens: 7, nanos: 0, priced: true };
    let accounts = call(&house, &secret).unwrap().tab().accounts.clone();
    reserve(&accounts, demand, Moment::now()).unwrap().settle(7, 0, Moment::now());
    let patch = json!({"limits": {"concurrency": null, "requests": "5/m"}, "team": "rival"});
    let entry = house.change_entry(&owner(), Kind::Key, &id, &patch).await.unwrap();
    let expected = json!({"limits": {"requests": "5/m"}, "team": "rival",
        "budget": [{"tokens": 10, "window": "1d"}]});
    assert_eq!(entry.settings, expected);
    let caller = call(&house, &secret).unwrap();
    assert_eq!(caller.team().map(|team| &**team), Some("rival"));
    reserve(&caller.tab().accounts, demand, Moment::now()).unwrap_err();
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_path_and_the_nearest_name() {
    let house = house();
    for (settings, said) in [
        (json!({"limts": {}}), "limts: [limts] is not known; did you mean \"limits\"?"),
        (json!({"team": "serch"}), "team: no team is called \"serch\"; did you mean \"search\"?"),
        (json!({"secret": "x"}), "\"secret\" is not known"),
        (json!({"budget": [{"usd": "1", "window": "1d"}]}), "budget[0].usd: must be an amount"),
        (json!({"routes": ["fats"]}), "routes[0]: no route is called \"fats\""),
        (json!({"role": null}), "role: must not be null"),
        (json!([]), "the settings must be a JSON object"),
    ] {
        let made = house.create_entry(&owner(), Kind::Key, draft(None, settings)).await;
        let error = made.unwrap_err();
        assert_eq!(error.kind, Fault::InvalidRequest);
        assert!(error.message.contains(said), "{said} in {}", error.message);
    }
    let made = house.create_entry(&owner(), Kind::Team, draft(Some("a b"), json!({}))).await;
    assert_eq!(fault(made), Fault::InvalidRequest);
}

#[tokio::test]
async fn what_the_file_owns_is_shown_and_never_changed() {
    let house = house();
    let patch = json!({"routes": []});
    let by = owner();
    assert_eq!(fault(house.change_entry(&by, Kind::Key, "ci", &patch).await), Fault::OwnedByFile);
    assert_eq!(fault(house.revoke_key(&by, "ci").await), Fault::OwnedByFile);
    assert_eq!(fault(house.rotate_key(&by, "ci", Duration::ZERO).await), Fault::OwnedByFile);
    assert_eq!(fault(house.remove_entry(&by, Kind::Team, "search").await), Fault::OwnedByFile);
    let again = draft(Some("ci"), json!({}));
    assert_eq!(fault(house.create_entry(&by, Kind::Key, again).await), Fault::OwnedByFile);
    let shown = house.entry(&by, Kind::Key, "ci").unwrap();
    assert_eq!((shown.source, shown.settings), (Source::File, json!({"team": "search"})));
    assert_eq!(fault(house.revoke_key(&by, "cii").await), Fault::NotFound);
}

#[tokio::test]
async fn the_same_request_makes_one_key_and_shows_its_secret_once() {
    let house = house();
    let once = |tag: &str| Draft {
        idempotency: Some("request-1".to_owned()),
        ..draft(None, json!({"tags": {"n": tag}}))
    };
    let first = house.create_entry(&owner(), Kind::Key, once("a")).await.unwrap();
    let second = house.create_entry(&owner(), Kind::Key, once("a")).await.unwrap();
    assert_eq!(first.entry, second.entry);
    assert!(first.secret.is_some() && second.secret.is_none() && second.replayed);
    assert_eq!(fault(house.create_entry(&owner(), Kind::Key, once("b")).await), Fault::Conflict);
    // Others have tokens of their own.
    let by = actor(Role::Operator, None);
    assert!(!house.create_entry(&by, Kind::Key, once("b")).await.unwrap().replayed);
}

#[tokio::test]
async fn roles_reach_as_far_as_they_say() {
    let house = house();
    let plain = || draft(None, json!({}));
    let with_role = || draft(None, json!({"role": "viewer"}));
    let viewer = actor(Role::Viewer, None);
    assert_eq!(fault(house.create_entry(&viewer, Kind::Key, plain()).await), Fault::NotAllowed);
    assert!(house.entry(&viewer, Kind::Key, "ci").is_ok());
    let operator = actor(Role::Operator, None);
    assert!(house.create_entry(&operator, Kind::Key, plain()).await.is_ok());
    assert_eq!(
        fault(house.create_entry(&operator, Kind::Key, with_role()).await),
        Fault::NotAllowed
    );
    let made = house.create_entry(&owner(), Kind::Key, with_role()).await.unwrap();
    let id = made.entry.id.as_str();
    assert_eq!(fault(house.revoke_key(&operator, id).await), Fault::NotAllowed);
    assert_eq!(fault(house.rotate_key(&operator, id, Duration::ZERO).await), Fault::NotAllowed);
    assert_eq!(call(&house, &made.secret.unwrap()).unwrap().role(), Some(Role::Viewer));
}

#[tokio::test]
async fn a_team_admin_meets_nothing_of_others() {
    let house = house();
    let by = actor(Role::TeamAdmin, Some("rival"));
    let own = house.create_entry(&by, Kind::Key, draft(None, json!({}))).await.unwrap().entry;
    assert_eq!(own.team.as_deref(), Some("rival"));
    let foreign = draft(None, json!({"team": "search"}));
    assert_eq!(fault(house.create_entry(&by, Kind::Key, foreign).await), Fault::NotAllowed);
    house
        .create_entry(&owner(), Kind::User, draft(Some("eve"), json!({"team": "search"})))
        .await
        .unwrap();
    let borrowed = draft(None, json!({"user": "eve"}));
    assert_eq!(fault(house.create_entry(&by, Kind::Key, borrowed).await), Fault::NotFound);
    let (theirs, _) = key(&house, json!({"user": "eve"})).await;
    for id in [theirs.as_str(), "ci"] {
        assert_eq!(fault(house.entry(&by, Kind::Key, id)), Fault::NotFound);
        assert_eq!(fault(house.revoke_key(&by, id).await), Fault::NotFound);
    }
    let patch = json!({"team": "search"});
    let moved = house.change_entry(&by, Kind::Key, &own.id, &patch).await;
    assert_eq!(fault(moved), Fault::NotAllowed);
    let more = json!({"budget": []});
    let team = house.change_entry(&by, Kind::Team, "search", &more).await;
    assert_eq!(fault(team), Fault::NotFound);
    let page = Page { limit: 10, ..Page::default() };
    let (seen, _) = house.entries(&by, Kind::Key, page).unwrap();
    assert_eq!(seen, [own]);
}

#[tokio::test]
async fn nobody_is_removed_to_whom_others_belong() {
    let house = house();
    let team = draft(Some("made"), json!({"org": "acme"}));
    house.create_entry(&owner(), Kind::Team, team).await.unwrap();
    let (id, secret) = key(&house, json!({"team": "made"})).await;
    assert_eq!(fault(house.remove_entry(&owner(), Kind::Team, "made").await), Fault::Conflict);
    let patch = json!({"team": null});
    house.change_entry(&owner(), Kind::Key, &id, &patch).await.unwrap();
    house.remove_entry(&owner(), Kind::Team, "made").await.unwrap();
    assert_eq!(fault(house.entry(&owner(), Kind::Team, "made")), Fault::NotFound);
    assert!(call(&house, &secret).unwrap().team().is_none());
    let again = draft(Some("made"), json!({}));
    assert!(house.create_entry(&owner(), Kind::Team, again).await.is_ok());
}

#[tokio::test]
async fn a_change_of_the_team_reaches_its_keys_at_once() {
    let house = house();
    let team = draft(Some("made"), json!({}));
    house.create_entry(&owner(), Kind::Team, team).await.unwrap();
    let (_, secret) = key(&house, json!({"team": "made"})).await;
    assert!(call(&house, &secret).unwrap().tab().is_empty());
    let patch = json!({"limits": {"concurrency": 1}, "org": "acme"});
    house.change_entry(&owner(), Kind::Team, "made", &patch).await.unwrap();
    let caller = call(&house, &secret).unwrap();
    assert_eq!(caller.tab().accounts.len(), 1);
    assert_eq!(caller.org().map(|org| &**org), Some("acme"));
}

#[tokio::test]
async fn pages_show_what_is_in_the_file_and_what_is_not() {
    let house = house();
    for id in ["b", "d", "zz"] {
        house.create_entry(&owner(), Kind::Key, draft(Some(id), json!({}))).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = Page { limit: 2, after: after.as_deref(), team: None };
        let (entries, next) = house.entries(&owner(), Kind::Key, page).unwrap();
        seen.extend(entries.into_iter().map(|entry| entry.id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["b", "ci", "d", "zz"]);
}

#[tokio::test]
async fn another_process_and_the_next_one_see_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("state.db"));
    let settings = |journal: &str| Settings {
        journal: Some(folder.path().join(journal)),
        ..Settings::at(url.clone())
    };
    let here = house_on(Store::open(&settings("one")).unwrap());
    let there = house_on(Store::open(&settings("two")).unwrap());
    let budget = json!({"budget": [{"tokens": 10, "window": "none"}]});
    let (id, secret) = key(&here, budget).await;
    assert_eq!(call(&there, &secret).unwrap_err(), Fault::InvalidKey);
    there.follow_directory().await.unwrap();
    assert!(call(&there, &secret).is_ok());
    let more = TopUp {
        scope: Scope::Key,
        name: id.clone(),
        unit: Unit::Tokens,
        window: "none".to_owned(),
        amount: 5,
        idempotency: Some("once".to_owned()),
    };
    for replayed in [false, true] {
        let (budget, again) = there.top_up(&owner(), more.clone()).await.unwrap();
        assert_eq!((budget.limit.value, again), (15, replayed));
    }
    let other = TopUp { amount: 6, ..more };
    assert_eq!(there.top_up(&owner(), other).await.unwrap_err().kind, Fault::Conflict);
    // Changed there, so that what is known here is not so any more.
    let patch = json!({"tags": {"a": "b"}});
    there.change_entry(&owner(), Kind::Key, &id, &patch).await.unwrap();
    here.change_entry(&owner(), Kind::Key, &id, &json!({"tags": {"c": "d"}})).await.unwrap();
    let settings_here = here.entry(&owner(), Kind::Key, &id).unwrap().settings;
    assert_eq!(settings_here["tags"], json!({"a": "b", "c": "d"}));
    let next = house_on(Store::open(&settings("three")).unwrap());
    next.load_directory().await.unwrap();
    for house in [&here, &next] {
        let account = &call(house, &secret).unwrap().tab().accounts[0].clone();
        assert_eq!(account.status(Moment::now())[0].limit.value, 15);
    }
    here.revoke_key(&owner(), &id).await.unwrap();
    next.follow_directory().await.unwrap();
    assert_eq!(call(&next, &secret).unwrap_err(), Fault::KeyRevoked);
}

#[tokio::test]
async fn what_another_process_has_just_made_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("state.db"));
    let house = |journal: &str| {
        let journal = Some(folder.path().join(journal));
        house_on(Store::open(&Settings { journal, ..Settings::at(url.clone()) }).unwrap())
    };
    let here = house("one");
    let once = || Draft { idempotency: Some("a".to_owned()), ..draft(None, json!({})) };
    let made = here.create_entry(&owner(), Kind::Key, once()).await.unwrap().entry;
    let there = house("two");
    let again = there.create_entry(&owner(), Kind::Key, once()).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.entry, made);
    let shown = house("three").entry_of_all(&owner(), Kind::Key, &made.id).await.unwrap();
    assert_eq!(shown, made);
    let patch = json!({"tags": {"a": "b"}});
    house("four").change_entry(&owner(), Kind::Key, &made.id, &patch).await.unwrap();
    let rotated = house("five").rotate_key(&owner(), &made.id, Duration::ZERO).await.unwrap();
    assert_eq!(rotated.entry.settings, patch);
    assert!(house("six").revoke_key(&owner(), &made.id).await.unwrap().revoked_at.is_some());
}

#[tokio::test]
async fn every_change_is_told_and_no_secret_with_it() {
    let house = house();
    let (id, secret) = key(&house, json!({"team": "search"})).await;
    house.change_entry(&owner(), Kind::Key, &id, &json!({"team": "rival"})).await.unwrap();
    let rotated = house.rotate_key(&owner(), &id, Duration::ZERO).await.unwrap();
    house.revoke_key(&owner(), &id).await.unwrap();
    let trail = house.store().audits(&AuditFilter::default(), None, 10).await.unwrap();
    let told: Vec<_> = trail.iter().rev().map(|(_, row)| row.what.as_str()).collect();
    assert_eq!(told, ["key.create", "key.change", "key.rotate", "key.revoke"]);
    let change = &trail[2].1;
    assert_eq!((change.who.as_str(), change.subject.as_str()), ("ann", &*format!("key:{id}")));
    assert_eq!(change.before.as_deref(), Some(r#"{"team":"search"}"#));
    assert_eq!(change.after.as_deref(), Some(r#"{"team":"rival"}"#));
    let all = format!("{trail:?}");
    for secret in [secret, rotated.secret.unwrap()] {
        let digest = crate::access::digest(secret.expose());
        let hex = crate::store::hex(&digest);
        assert!(!all.contains(secret.expose()) && !all.contains(&hex));
    }
    assert_eq!(house.store().verify_audit().await.unwrap().broken_at, None);
}
