//! Keys, users, teams and orgs that are made at run time. They take the same tables as in the
//! file, written as JSON and read by the same readers.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::access::{self, Key, Org, Team, User};
use super::budget::Budget;
use super::check;
use super::limit::Limits;
use super::problem::{Lines, Report, suggestion};
use super::reader::Section;
use super::{Config, Problem, parse_toml, value};

/// What can be made at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Key,
    User,
    Team,
    Org,
}

/// What is written for one of them.
#[derive(Clone, Debug)]
pub enum Terms {
    Key(Arc<Key>),
    User(Arc<User>),
    Team(Arc<Team>),
    Org(Arc<Org>),
}

/// Whoever else there is, in the file and outside of it.
pub trait People {
    fn has(&self, kind: Kind, name: &str) -> bool;
    fn names(&self, kind: Kind) -> Vec<String>;
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 4] = [Self::Key, Self::User, Self::Team, Self::Org];

    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Team => "team",
            Self::Org => "org",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Whether a user, team or org, or a key, may be called this.
pub fn is_name(name: &str) -> bool {
    name.len() <= 200 && value::is_name(name)
}

/// Reads what is written for one, and says everything that is wrong with it.
pub fn read(kind: Kind, settings: &Json) -> Result<Terms, Vec<Problem>> {
    let origin = Path::new("");
    let of_all = |message: String| vec![Problem::of_file(origin, message)];
    if !settings.is_object() {
        return Err(of_all("the settings must be a JSON object".to_owned()));
    }
    if let Some(path) = path_of_null(settings) {
        let problem = Problem { path, ..Problem::of_file(origin, "must not be null".to_owned()) };
        return Err(vec![problem]);
    }
    let text = toml::Value::try_from(settings).map_err(|error| of_all(error.to_string()))?;
    let text = toml::to_string(&text).map_err(|error| of_all(error.to_string()))?;
    let root = parse_toml(&text, origin)?;
    let report = Report::new(origin, &Lines::of(&text), &root);
    let keys = match kind {
        Kind::Key => access::SETTINGS,
        Kind::User => access::USER_KEYS,
        Kind::Team => access::TEAM_KEYS,
        Kind::Org => access::ORG_KEYS,
    };
    let section = Section::new(String::new(), &root, keys, &report);
    let terms = match kind {
        Kind::Key => Terms::Key(Arc::new(Key::read_settings(&section))),
        Kind::User => Terms::User(Arc::new(User::read(&section))),
        Kind::Team => Terms::Team(Arc::new(Team::read(&section))),
        Kind::Org => Terms::Org(Arc::new(Org::read(&section))),
    };
    report.close().map_err(without_lines)?;
    Ok(terms)
}

/// Whether everything exists that it names.
pub fn check(terms: &Terms, config: &Config, people: &dyn People) -> Result<(), Vec<Problem>> {
    let report = Report::empty();
    let member = |kind: Kind, name: Option<&String>| {
        let Some(name) = name.filter(|name| !people.has(kind, name)) else { return };
        let known = people.names(kind);
        let hint = suggestion(name, known.iter().map(String::as_str));
        let kind = kind.name();
        report.problem(kind, format!("no {kind} is called \"{name}\"{hint}"));
    };
    match terms {
        Terms::Key(key) => {
            member(Kind::User, key.user.as_ref());
            member(Kind::Team, key.team.as_ref());
            check::check_grants(config, "", key, &report);
        }
        Terms::User(user) => member(Kind::Team, user.team.as_ref()),
        Terms::Team(team) => member(Kind::Org, team.org.as_ref()),
        Terms::Org(_) => {}
    }
    report.close().map(|_| ()).map_err(without_lines)
}

/// They stand in a text that nobody has written.
fn without_lines(mut problems: Vec<Problem>) -> Vec<Problem> {
    for problem in &mut problems {
        problem.line = 0;
    }
    problems
}

fn path_of_null(value: &Json) -> Option<String> {
    let within = |name: String, value: &Json| match value {
        Json::Null => Some(name),
        inner => path_of_null(inner).map(|path| format!("{name}.{path}")),
    };
    match value {
        Json::Object(members) => {
            members.iter().find_map(|(name, value)| within(name.clone(), value))
        }
        Json::Array(items) => {
            items.iter().enumerate().find_map(|(place, item)| within(place.to_string(), item))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

// === impl Terms ===

impl Terms {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Key(_) => Kind::Key,
            Self::User(_) => Kind::User,
            Self::Team(_) => Kind::Team,
            Self::Org(_) => Kind::Org,
        }
    }

    /// As it was written.
    pub fn written(&self) -> &Json {
        match self {
            Self::Key(key) => &key.written,
            Self::User(user) => &user.written,
            Self::Team(team) => &team.written,
            Self::Org(org) => &org.written,
        }
    }

    pub fn limits(&self) -> (&Limits, &[Budget]) {
        match self {
            Self::Key(key) => (&key.limits, &key.budget),
            Self::User(user) => (&user.limits, &user.budget),
            Self::Team(team) => (&team.limits, &team.budget),
            Self::Org(org) => (&org.limits, &org.budget),
        }
    }
}
