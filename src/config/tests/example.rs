//! The example config keeps its word: it loads, and it shows every key there is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::super::{
    SECTIONS, Source, access, budget, cache, guard, limit, manager, model, oidc, parse_toml,
    provider, route, server, store, telemetry,
};
use super::{Config, parse};

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// The example with every commented setting in force.
fn uncommented_example() -> String {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let setting = line.strip_prefix("# ").filter(|rest| {
            let word = rest.split(' ').next().unwrap_or_default();
            rest.starts_with('[') || rest[word.len()..].starts_with(" = ")
        });
        let _ = writeln!(text, "{}", setting.unwrap_or(line));
    }
    text
}

#[test]
fn the_example_loads_as_it_stands() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.warnings, []);
    let usual = Config::empty(Source::Discovery);
    assert_eq!(
        (config.server, config.admin, config.store),
        (usual.server, usual.admin, usual.store),
        "the defaults it claims"
    );
    assert_eq!(config.telemetry, usual.telemetry);
}

#[test]
fn every_commented_setting_of_the_example_is_valid() {
    let problems = parse(&uncommented_example()).unwrap_err();
    for problem in problems {
        let absent = ["is not set", "No such file"];
        assert!(absent.iter().any(|reason| problem.message.contains(reason)), "{problem}");
    }
}

#[test]
fn every_known_key_stands_in_the_example() {
    let text = uncommented_example();
    let root = parse_toml(&text, Path::new("")).unwrap();
    let keys_of = |section: &str| -> Vec<String> {
        let tables = root[section].get_ref().as_table().unwrap();
        let entries = tables.values().filter_map(|value| value.get_ref().as_table());
        let keys = entries.flat_map(|table| table.keys());
        keys.chain(tables.keys()).map(|key| key.get_ref().to_string()).collect()
    };
    let known = BTreeMap::from([
        ("server", [server::SERVER_KEYS, server::TLS_KEYS].concat()),
        ("admin", server::ADMIN_KEYS.to_vec()),
        ("store", store::KEYS.to_vec()),
        ("providers", [provider::KEYS, provider::TIMEOUT_KEYS].concat()),
        ("models", [model::KEYS, model::PRICE_KEYS, model::TIER_KEYS].concat()),
        ("routes", [route::KEYS, route::NESTED_KEYS].concat()),
        ("keys", access::KEYS.to_vec()),
        ("users", access::USER_KEYS.to_vec()),
        ("teams", [access::TEAM_KEYS, limit::KEYS, budget::KEYS].concat()),
        ("orgs", access::ORG_KEYS.to_vec()),
        ("guards", guard::KEYS.to_vec()),
        ("auth", [oidc::AUTH_KEYS, oidc::KEYS].concat()),
        ("token_weights", budget::WEIGHT_KEYS.to_vec()),
        ("cache", cache::KEYS.to_vec()),
        ("secrets", [manager::KEYS, manager::VAULT_KEYS, manager::APPROLE_KEYS].concat()),
        ("telemetry", telemetry::KEYS.to_vec()),
    ]);
    assert_eq!(known.len(), SECTIONS.len());
    for (section, keys) in known {
        let written = keys_of(section);
        for key in keys {
            let nested = [provider::TIMEOUT_KEYS, route::NESTED_KEYS, model::PRICE_KEYS];
            let shared = [model::TIER_KEYS, limit::KEYS, budget::KEYS, oidc::KEYS].concat();
            let logins = [manager::VAULT_KEYS, manager::APPROLE_KEYS, manager::KUBERNETES_KEYS];
            let shared = [shared, logins.concat()].concat();
            let nested = nested.concat().contains(&key) || shared.contains(&key);
            let spelled = [format!(" {key} = "), format!("\n{key} = ")];
            let found = written.iter().any(|name| name == key)
                || (nested && spelled.iter().any(|spelled| text.contains(spelled)));
            assert!(found, "`{key}` of [{section}] is missing in the example");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_refused_politely(text in ".{0,200}", value in "[ -~]{0,40}") {
        let _ = parse(&text);
        let _ = parse(&EXAMPLE.replace("\"30s\"", &value));
    }
}
