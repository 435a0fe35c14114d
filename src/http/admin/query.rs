//! The queries of the operators' door: which names there are, and what their values mean.

use std::time::SystemTime;

use crate::canon::Outcome;
use crate::config;
use crate::error::Error;
use crate::http::endpoint;
use crate::store::{Column, Filter};

/// Rows of one page, unless the query says otherwise, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1000;
/// What more can hardly be read by anybody.
const MOST_GROUPS: usize = 6;

/// One name that a query may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Its JSON Schema.
    pub(super) schema: &'static str,
}

/// What a request asks behind its question mark. Each name is known and given once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

/// How rows are spelled in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    /// One JSON object a line.
    Lines,
}

const TEXT: &str = r#"{"type":"string"}"#;

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, schema: TEXT }
}

pub(super) const PAGE: &[Parameter] = &[
    Parameter {
        name: "limit",
        about: "Rows of the page",
        schema: r#"{"type":"integer","minimum":1,"maximum":1000,"default":100}"#,
    },
    text("after", "Goes on behind the page that gave this as its `next`"),
];

pub(super) const MEMBERS: &[Parameter] = &[text("team", "Entries that belong to this team")];

const FROM: Parameter = text("from", "Not before this time: 2026-11-21 or 2026-11-21T10:00:00Z");
const TO: Parameter = text("to", "Before this time");

pub(super) const FILTER: &[Parameter] = &[
    FROM,
    TO,
    text("key", "Calls of this key"),
    text("team", "Calls of this team"),
    text("user", "Calls of this user"),
    text("org", "Calls of this org"),
    text("route", "Calls that named this route"),
    text("agent", "Calls of this agent"),
    text("task", "Calls of this kind of work"),
    text("provider", "Calls that this provider answered"),
    text("model", "Calls that this model answered, as its provider spells it"),
    text("surface", "Calls by this door, such as chat"),
    text("outcome", "Calls that ended so, such as ok"),
    text("purpose", "client, or what the gateway called for itself"),
    text("day", "Calls of this day of UTC: 2026-11-21"),
    text("tag", "Calls with this tag: name=value"),
];

pub(super) const GROUPS: &[Parameter] = &[text(
    "group_by",
    "What calls are added up by, with commas: key, team, user, org, route, agent, task, provider, \
     model, surface, outcome, purpose, day, tag. A call with several tags counts for each",
)];

pub(super) const EXPORT: &[Parameter] = &[Parameter {
    name: "format",
    about: "csv (RFC 4180), or jsonl: one object a line",
    schema: r#"{"type":"string","enum":["csv","jsonl"],"default":"csv"}"#,
}];

pub(super) const TRAIL: &[Parameter] = &[
    FROM,
    TO,
    text("who", "Changes by this key, or by `admin`"),
    text("what", "Changes of this kind, such as key.create"),
    text("subject", "Changes of this entry, such as key:ci"),
];

// === impl Query ===

impl Query {
    pub(super) fn read(text: &str, known: &[&[Parameter]]) -> Result<Self, Error> {
        let pairs = endpoint::parameters(text);
        let names = || known.iter().flat_map(|some| some.iter()).map(|one| one.name);
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !names().any(|known| known == name) {
                let names: Vec<&str> = names().collect();
                let hint = config::suggestion(name, names.iter().copied());
                return Err(Error::invalid(format!("The query has an unknown `{name}`{hint}")));
            }
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("The query has `{name}` twice.")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn limit(&self) -> Result<u32, Error> {
        let Some(limit) = self.text("limit") else { return Ok(USUAL) };
        let limit = limit.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        limit.ok_or_else(|| Error::invalid(format!("`limit` is a number from 1 to {MOST}.")))
    }

    /// Where the page begins.
    pub(super) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Error> {
        let after = self.text("after").map(str::parse).transpose();
        after.map_err(|_| Error::invalid("`after` is the `next` of a page, and nothing else."))
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // The plus of an offset means a space here, and few remember to write %2B.
        let text = if text.contains('T') { text.replace(' ', "+") } else { text.to_owned() };
        let time = config::point_in_time(&text);
        time.map(Some).map_err(|problem| Error::invalid(format!("`{name}`: {problem}.")))
    }

    pub(super) fn filter(&self) -> Result<Filter, Error> {
        let equal = Column::ALL.into_iter().filter_map(|column| {
            let value = self.text(column.name())?;
            Some((column, value.to_owned()))
        });
        let equal: Vec<(Column, String)> = equal.collect();
        let outcome = equal.iter().find(|(column, _)| *column == Column::Outcome);
        if let Some((_, name)) = outcome.filter(|(_, name)| Outcome::parse(name).is_none()) {
            let hint = config::suggestion(name, Outcome::ALL.map(Outcome::name));
            return Err(Error::invalid(format!("Calls have no outcome `{name}`{hint}")));
        }
        Ok(Filter { from: self.time("from")?, to: self.time("to")?, equal })
    }

    pub(super) fn groups(&self) -> Result<Vec<Column>, Error> {
        let mut groups = Vec::new();
        let text = self.text("group_by").unwrap_or_default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let Some(column) = Column::parse(name) else {
                let hint = config::suggestion(name, Column::ALL.map(Column::name));
                return Err(Error::invalid(format!("Calls have no `{name}`{hint}")));
            };
            if !groups.contains(&column) {
                groups.push(column);
            }
        }
        if groups.len() > MOST_GROUPS {
            return Err(Error::invalid(format!("`group_by` takes {MOST_GROUPS} names at most.")));
        }
        Ok(groups)
    }

    pub(super) fn format(&self) -> Result<Format, Error> {
        match self.text("format") {
            None | Some("csv") => Ok(Format::Csv),
            Some("jsonl") => Ok(Format::Lines),
            Some(_) => Err(Error::invalid("`format` is `csv` or `jsonl`.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<impl std::fmt::Debug, Error>) -> String {
        result.unwrap_err().message.into_owned()
    }

    #[test]
    fn what_calls_can_be_chosen_by_can_be_asked_for() {
        let known = |column: &Column| FILTER.iter().any(|one| one.name == column.name());
        assert!(Column::ALL.iter().all(known));
    }

    #[test]
    fn a_query_means_what_it_says_or_is_refused() {
        let all: &[&[Parameter]] = &[PAGE, FILTER, GROUPS, EXPORT];
        let read = |text| Query::read(text, all);
        let query = read("key=ci&tag=env=test&from=2026-11-21T01:00:00+01:00&group_by=key,%20day");
        let query = query.unwrap();
        let filter = query.filter().unwrap();
        assert_eq!(
            filter.equal,
            [(Column::Key, "ci".to_owned()), (Column::Tag, "env=test".to_owned())]
        );
        let from = humantime::format_rfc3339(filter.from.unwrap()).to_string();
        assert_eq!(from, "2026-11-21T00:00:00Z");
        assert_eq!(query.groups().unwrap(), [Column::Key, Column::Day]);
        assert_eq!(query.limit().unwrap(), USUAL);
        assert_eq!(query.format().unwrap(), Format::Csv);

        assert!(message(read("tema=a")).contains("did you mean \"team\"?"));
        assert!(message(read("team=a&team=b")).contains("twice"));
        assert!(message(read("limit=1001").unwrap().limit()).contains("1000"));
        assert!(message(read("limit=0").unwrap().limit()).contains("from 1"));
        assert!(message(read("from=now").unwrap().filter()).contains("point in time"));
        assert!(message(read("group_by=kye").unwrap().groups()).contains("\"key\""));
        let outcome = read("outcome=timout").unwrap().filter();
        assert!(message(outcome).contains("did you mean \"timeout\"?"));
        assert!(message(read("format=xml").unwrap().format()).contains("jsonl"));
    }
}
