//! The example config keeps its word: it loads, and it shows every key there is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::super::{
    Agent, SECTIONS, Source, access, agent, budget, cache, guard, hook, limit, mcp, model, oidc,
    otlp, parse_toml, prompt, provider, record, route, schemas, secrets, server, store, telemetry,
    tool,
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
    assert_eq!(config.agent_engine, usual.agent_engine);
    let (helper, usual) = (&config.agents["helper"], Agent::defaults(None));
    assert_eq!(
        (&helper.limits, &helper.budget, &helper.context, helper.stream, helper.on_unknown),
        (&usual.limits, &usual.budget, &usual.context, usual.stream, usual.on_unknown),
    );
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
    let terms = [
        agent::engine::RETENTION_KEYS,
        agent::terms::LIMIT_KEYS,
        agent::terms::BUDGET_KEYS,
        agent::terms::CONTEXT_KEYS,
        agent::terms::CONFIDENCE_KEYS,
    ];
    let terms = terms.concat();
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
        ("secrets", [secrets::KEYS, secrets::VAULT_KEYS, secrets::APPROLE_KEYS].concat()),
        ("telemetry", [telemetry::KEYS, otlp::KEYS].concat()),
        ("record", record::KEYS.to_vec()),
        ("agent_engine", [agent::engine::ENGINE_KEYS, agent::DEFAULT_KEYS, &terms].concat()),
        ("mcp", [mcp::KEYS, mcp::EXPOSE_KEYS].concat()),
        ("tools", [tool::KEYS, &nested_of_tools()].concat()),
        ("schemas", schemas::KEYS.to_vec()),
        ("prompts", prompt::KEYS.to_vec()),
        ("hooks", hook::KEYS.to_vec()),
        ("agents", [agent::KEYS, agent::ACCESS_KEYS, agent::ROLLOUT_KEYS].concat()),
    ]);
    assert_eq!(known.len(), SECTIONS.len());
    for (section, keys) in known {
        let written = keys_of(section);
        for key in keys {
            let nested = [provider::TIMEOUT_KEYS, route::NESTED_KEYS, model::PRICE_KEYS];
            let shared = [model::TIER_KEYS, limit::KEYS, budget::KEYS, oidc::KEYS].concat();
            let logins = [secrets::VAULT_KEYS, secrets::APPROLE_KEYS, secrets::KUBERNETES_KEYS];
            let granted = [agent::ACCESS_KEYS, agent::ROLLOUT_KEYS, mcp::EXPOSE_KEYS].concat();
            let granted = [granted, nested_of_tools()].concat();
            let shared = [shared, logins.concat(), terms.clone(), granted].concat();
            let nested = nested.concat().contains(&key) || shared.contains(&key);
            let spelled = [format!(" {key} = "), format!("\n{key} = ")];
            let found = written.iter().any(|name| name == key)
                || (nested && spelled.iter().any(|spelled| text.contains(spelled)));
            assert!(found, "`{key}` of [{section}] is missing in the example");
        }
    }
}

fn nested_of_tools() -> Vec<&'static str> {
    let called = [tool::RETRY_KEYS, tool::BREAKER_KEYS, tool::CACHE_KEYS, tool::LIMIT_KEYS];
    [called.concat(), [tool::APPROVAL_KEYS, tool::UNDO_KEYS, tool::AUTH_KEYS].concat()].concat()
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_refused_politely(text in ".{0,200}", value in "[ -~]{0,40}") {
        let _ = parse(&text);
        let _ = parse(&EXAMPLE.replace("\"30s\"", &value));
    }
}
