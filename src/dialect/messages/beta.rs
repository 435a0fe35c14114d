//! Which values of the `anthropic-beta` header each host of Claude takes.
//!
//! A host refuses a call with a value that it does not know, and a client such as a coding agent
//! sends many. The API itself knows them all; the clouds a few, some under another name.

/// Whose door a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Betas {
    /// The API itself and hosts that take whatever it takes.
    All,
    Vertex,
    Bedrock,
}

/// A value, and what it is called on Vertex and on Bedrock; `None` where it is refused.
struct Row(&'static str, Option<&'static str>, Option<&'static str>);

/// A value that both clouds take under its own name.
const fn both(name: &'static str) -> Row {
    Row(name, Some(name), Some(name))
}

/// From the clouds' own pages on Claude and from what they have been seen to take. A value that
/// is not named here goes to the API itself only.
const TABLE: &[Row] = &[
    Row(
        "advanced-tool-use-2025-11-20",
        Some("tool-search-tool-2025-10-19"),
        Some("tool-search-tool-2025-10-19"),
    ),
    both("tool-search-tool-2025-10-19"),
    both("compact-2026-01-12"),
    Row("compact-2026-09-04", Some("compact-2026-09-04"), None),
    both("computer-use-2025-01-24"),
    both("computer-use-2025-11-24"),
    both("context-1m-2025-08-07"),
    both("context-management-2025-06-27"),
    Row("effort-2025-11-24", None, Some("effort-2025-11-24")),
    Row(
        "fine-grained-tool-streaming-2025-05-14",
        None,
        Some("fine-grained-tool-streaming-2025-05-14"),
    ),
    Row("interleaved-thinking-2025-05-14", Some("interleaved-thinking-2025-05-14"), None),
    Row(
        "mid-conversation-output-config-2026-07-01",
        None,
        Some("mid-conversation-output-config-2026-07-01"),
    ),
    Row(
        "mid-conversation-tool-changes-2026-07-01",
        None,
        Some("mid-conversation-tool-changes-2026-07-01"),
    ),
    both("thinking-binding-controls-2026-08-01"),
    both("thinking-display-updates-2026-08-18"),
    Row("web-search-2025-03-05", Some("web-search-2025-03-05"), None),
];

/// The values of a client's header that `host` takes, in the client's order and each once, and
/// those that it does not.
pub fn betas(header: &str, host: Betas) -> (String, Vec<&str>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for value in header.split(',').map(str::trim).filter(|value| !value.is_empty()) {
        let row = TABLE.iter().find(|row| row.0 == value);
        let known = match host {
            Betas::All => Some(value),
            Betas::Vertex => row.and_then(|row| row.1),
            Betas::Bedrock => row.and_then(|row| row.2),
        };
        match known {
            Some(known) if !kept.contains(&known) => kept.push(known),
            Some(_) => {}
            None => dropped.push(value),
        }
    }
    (kept.join(","), dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_sent_only_the_betas_it_takes_under_its_own_names() {
        let header = "context-1m-2025-08-07, advanced-tool-use-2025-11-20,\
                      tool-search-tool-2025-10-19,files-api-2025-04-14,,effort-2025-11-24";
        let (kept, dropped) = betas(header, Betas::Vertex);
        assert_eq!(kept, "context-1m-2025-08-07,tool-search-tool-2025-10-19");
        assert_eq!(dropped, ["files-api-2025-04-14", "effort-2025-11-24"]);
        let (kept, dropped) = betas(header, Betas::Bedrock);
        assert_eq!(kept, "context-1m-2025-08-07,tool-search-tool-2025-10-19,effort-2025-11-24");
        assert_eq!(dropped, ["files-api-2025-04-14"]);
        let (kept, dropped) = betas("a,b , a", Betas::All);
        assert_eq!((kept.as_str(), dropped.len()), ("a,b", 0));
    }
}
