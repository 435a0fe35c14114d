//! The page about tools keeps its word: every section that it shows is taken as it stands.

use std::collections::BTreeSet;

use super::super::ToolKind;
use super::{SOUND, parse};

const PAGE: &str = include_str!("../../../docs/tools.md");

fn shown() -> String {
    let blocks = PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.collect()
}

#[test]
fn every_tool_on_the_page_is_valid_where_its_secrets_and_files_are() {
    for problem in parse(&format!("{SOUND}{}", shown())).unwrap_err() {
        let absent = ["is not set", "No such file"];
        assert!(absent.iter().any(|reason| problem.message.contains(reason)), "{problem}");
    }
}

#[test]
fn the_page_shows_each_kind_that_has_no_page_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("crm.yaml");
    std::fs::write(&spec, "openapi: 3.1.0\npaths: {}\n").unwrap();
    let text = shown()
        .replace("file:tools/crm.openapi.yaml", spec.to_str().unwrap())
        .replace("env:SALES_DSN", "sqlite:sales.db")
        .replace("env:WAREHOUSE_DSN", "postgres://reader@db/stock")
        .replace("env:", "");
    let config = parse(&format!("{SOUND}{text}")).unwrap();
    let kinds: BTreeSet<_> = config.tools.values().map(|tool| tool.kind.name()).collect();
    assert_eq!(kinds, BTreeSet::from(["agent", "builtin", "graphql", "http", "openapi", "sql"]));
    let ToolKind::Sql(sales) = &config.tools["sales"].kind else { panic!("sales is no sql") };
    assert_eq!(sales.templates.len(), 2);
}
