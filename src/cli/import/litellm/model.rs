//! Whose a model is, by how LiteLLM spells it.

/// What is known of a provider of LiteLLM's: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// The variable that holds its key where none is written.
    pub(super) variable: Option<&'static str>,
    /// Where it is, if the kind does not know: `?` must be told, `+PATH` stands behind what is.
    pub(super) base_url: &'static str,
    pub(super) note: &'static str,
    doors: &'static str,
}

/// A model of a provider, and where it is asked, if its name says so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) row: Row,
    pub(super) name: String,
    pub(super) region: Option<String>,
}

const PROVIDERS: &str = include_str!("providers.tsv");
const BARE: &str = include_str!("bare.tsv");

pub(super) fn row(provider: &str) -> Option<Row> {
    let lines = PROVIDERS.lines().filter(|line| !line.starts_with('#'));
    lines.map(Row::read).find(|row| row.name == provider)
}

/// Reads `provider/model`, or a model whose provider its name tells.
pub(super) fn read(written: &str, provider: Option<&str>) -> Option<Model> {
    let prefixed = written.split_once('/').and_then(|(prefix, rest)| Some((row(prefix)?, rest)));
    let (row, name) = match (provider, prefixed) {
        (Some(provider), Some((found, rest))) if found.name == provider => (found, rest),
        (Some(provider), _) => (row(provider)?, written),
        (None, Some(found)) => found,
        (None, None) => (row(bare(written)?)?, written),
    };
    let name = without_door(row, name);
    let (region, name) = match name.split_once('/') {
        Some((first, rest)) if row.variable.is_none() && is_region(first) => {
            (Some(first.to_owned()), rest)
        }
        _ => (None, name),
    };
    Some(Model { row, name: name.to_owned(), region })
}

/// Whose a model is that is written without its provider.
fn bare(model: &str) -> Option<&'static str> {
    let lines = BARE.lines().filter_map(|line| line.split_once('\t'));
    lines.into_iter().find_map(|(begins, owner)| model.starts_with(begins).then_some(owner))
}

/// Without the words that say which of the provider's APIs is asked: here that follows from the call.
fn without_door(row: Row, name: &str) -> &str {
    row.doors
        .split(' ')
        .filter(|door| !door.is_empty())
        .find_map(|door| name.strip_prefix(door))
        .unwrap_or(name)
}

/// As in `us-east-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() >= 3
        && parts.last().is_some_and(|last| last.parse::<u8>().is_ok())
        && parts[0].len() == 2
}

// === impl Row ===

impl Row {
    fn read(line: &'static str) -> Self {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (name, kind, variable) = (cell(), cell(), cell());
        Self {
            name,
            kind,
            variable: (variable != "-").then_some(variable),
            base_url: cell(),
            note: cell(),
            doors: cell(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::catalog;

    fn read(written: &str) -> Option<(&'static str, String, Option<String>)> {
        let model = super::read(written, None)?;
        Some((model.row.kind, model.name, model.region))
    }

    #[test]
    fn every_provider_of_the_table_is_of_a_kind_there_is() {
        for line in PROVIDERS.lines().filter(|line| !line.starts_with('#')) {
            let row = Row::read(line);
            assert!(catalog::find(row.kind).is_some(), "{row:?}");
            assert_eq!(line.split('\t').count(), 6, "{line}");
        }
        for line in BARE.lines().skip(1) {
            let (_, owner) = line.split_once('\t').unwrap();
            assert!(row(owner).is_some(), "{line}");
        }
    }

    #[test]
    fn a_model_is_found_however_it_is_spelled() {
        let found = |kind: &'static str, name: &str| Some((kind, name.to_owned(), None));
        assert_eq!(read("gpt-4o"), found("openai", "gpt-4o"));
        assert_eq!(read("openai/responses/gpt-5"), found("openai", "gpt-5"));
        assert_eq!(read("claude-sonnet-4-5"), found("anthropic", "claude-sonnet-4-5"));
        assert_eq!(
            read("bedrock/us-west-2/anthropic.claude-v2"),
            Some(("bedrock", "anthropic.claude-v2".to_owned(), Some("us-west-2".to_owned())))
        );
        assert_eq!(read("openrouter/openai/gpt-4o"), found("openrouter", "openai/gpt-4o"));
        assert_eq!(read("azure/o_series/my-o3"), found("azure", "my-o3"));
        assert_eq!(read("sagemaker/thing"), None);
        assert_eq!(read("my-own-model"), None);
    }
}
