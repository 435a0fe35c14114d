//! `[hooks.NAME]`: who is told what people have to do for runs, and how runs end.

use std::path::PathBuf;

use super::reader::Section;
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &["url", "secret", "events", "proxy", "ca", "allow_private"];

/// `[hooks.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    pub url: String,
    /// What bodies are signed with.
    pub secret: Option<Secret>,
    /// Of what it is told; of all, if nothing is said.
    pub events: Vec<HookEvent>,
    pub proxy: Option<String>,
    /// A PEM file of further certificate authorities to trust.
    pub ca: Option<PathBuf>,
    /// Whether its host may be one of this network. Link-local addresses, and those of metadata
    /// servers, never are.
    pub allow_private: bool,
}

/// What a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    ApprovalRequested,
    InputRequested,
    RunEscalated,
    RunEnded,
}

// === impl HookEvent ===

impl HookEvent {
    pub const ALL: [(&'static str, Self); 4] = [
        ("approval.requested", Self::ApprovalRequested),
        ("input.requested", Self::InputRequested),
        ("run.escalated", Self::RunEscalated),
        ("run.ended", Self::RunEnded),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

// === impl Hook ===

impl Hook {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let events = section.get("events").and_then(|field| field.list()).map(|fields| {
            let event = |it: &toml::de::DeValue<'_>| value::one_of(it, &HookEvent::ALL);
            fields.iter().filter_map(|field| field.read(event)).collect()
        });
        Self {
            url: section.require("url").and_then(|it| it.read(value::url)).unwrap_or_default(),
            secret: section
                .require("secret")
                .and_then(|field| Secret::read(&field, Literal::Warned)),
            events: events.unwrap_or_else(|| HookEvent::ALL.map(|(_, event)| event).to_vec()),
            proxy: section.read("proxy", value::url),
            ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
            allow_private: section.read("allow_private", value::flag).unwrap_or(true),
        }
    }
}
