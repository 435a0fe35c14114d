//! Everything that can be asked about agents, their runs and their tools, one row each. The router
//! and the answers to wrong paths and methods are made of these rows.

use http::Method;
use percent_encoding::percent_decode_str;

use super::{
    Answer, Asked, Door, approvals, control, follow, letters, registry, runs, tools, usage,
};
use crate::net::shed::BoxFuture;

/// One thing that can be asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Operation {
    pub(in crate::http) method: &'static Method,
    /// With `{id}` for one segment.
    pub(in crate::http) path: &'static str,
    pub(super) handler: Handler,
}

type Handler = fn(Door, Asked) -> BoxFuture<Answer>;

/// Why no row fits, where the path begins as those here do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) enum Misfit {
    Path,
    /// The methods that the path takes.
    Method(&'static str),
}

impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        (self.method, self.path) == (other.method, other.path)
    }
}

impl Eq for Operation {}

macro_rules! rows {
    ($($method:ident $path:literal $handler:path,)*) => {
        &[$(Operation {
            method: &Method::$method,
            path: $path,
            handler: |door, asked| Box::pin($handler(door, asked)),
        },)*]
    };
}

/// Where two rows fit, the earlier one is meant.
pub(in crate::http) const TABLE: &[Operation] = rows![
    GET "/v1/agents" registry::list,
    GET "/v1/agents/runs" runs::list,
    GET "/v1/agents/runs/{id}" runs::get,
    GET "/v1/agents/runs/{id}/events" follow::events,
    GET "/v1/agents/runs/{id}/steps" runs::steps,
    GET "/v1/agents/runs/{id}/trace" runs::trace,
    POST "/v1/agents/runs/{id}/cancel" control::cancel,
    POST "/v1/agents/runs/{id}/pause" control::pause,
    POST "/v1/agents/runs/{id}/resume" control::resume,
    POST "/v1/agents/runs/{id}/input" control::input,
    POST "/v1/agents/runs/{id}/resolve" control::resolve,
    POST "/v1/agents/runs/{id}/replay" control::replay,
    POST "/v1/agents/runs/{id}/fork" control::fork,
    POST "/v1/agents/runs/{id}/compensate" control::compensate,
    POST "/v1/agents/runs/{id}/feedback" control::feedback,
    GET "/v1/agents/usage" usage::sums,
    GET "/v1/agents/blobs/{id}" runs::blob,
    GET "/v1/agents/approvals" approvals::list,
    GET "/v1/agents/approvals/{id}" approvals::get,
    POST "/v1/agents/approvals/{id}" approvals::decide,
    GET "/v1/agents/dlq" letters::list,
    POST "/v1/agents/dlq/{id}/retry" letters::retry,
    POST "/v1/agents/dlq/{id}/discard" letters::discard,
    GET "/v1/agents/{id}" registry::get,
    GET "/v1/agents/{id}/versions" registry::versions,
    POST "/v1/agents/{id}/runs" runs::start,
    POST "/v1/agents/{id}/labels" registry::move_label,
    POST "/v1/agents/{id}/pause" registry::pause,
    POST "/v1/agents/{id}/resume" registry::resume,
    GET "/v1/tools" tools::list,
    GET "/v1/tools/{id}" tools::get,
    POST "/v1/tools/{id}/call" tools::call,
    GET "/v1/tools/{id}/pins" tools::pins,
    POST "/v1/tools/{id}/pins" tools::approve_pin,
];

/// The row that is asked for and what its path names; `None` where the path is not of this table.
pub(in crate::http) fn find(
    method: &Method,
    path: &str,
) -> Option<Result<(&'static Operation, String), Misfit>> {
    if !["/v1/agents", "/v1/tools"].iter().any(|root| is_below(path, root)) {
        return None;
    }
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let mut fitting = TABLE.iter().filter_map(|row| Some((row, row.fits(path)?)));
    let Some(first) = fitting.next() else { return Some(Err(Misfit::Path)) };
    // The same path with another method, and not another row that fits by chance.
    let same: Vec<_> = std::iter::once(first.clone())
        .chain(fitting.filter(|(row, _)| row.path == first.0.path))
        .collect();
    let methods: Vec<&Method> = same.iter().map(|(row, _)| row.method).collect();
    let allowed = match (methods.contains(&&Method::GET), methods.contains(&&Method::POST)) {
        (true, true) => "GET, POST",
        (true, false) => "GET",
        (false, _) => "POST",
    };
    let found = same.into_iter().find(|(row, _)| row.method == wanted);
    Some(found.ok_or(Misfit::Method(allowed)))
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

// === impl Operation ===

impl Operation {
    /// Whether it needs a place among the calls in flight: who looks, or ends something, does not.
    pub(in crate::http) fn makes_work(&self) -> bool {
        let ends = ["/cancel", "/pause"].iter().any(|end| self.path.ends_with(end));
        self.method == Method::POST && !ends
    }

    /// What stands where the path has its braces, if this is such a path; empty without any.
    fn fits(&self, path: &str) -> Option<String> {
        let Some((before, after)) = self.path.split_once("{id}") else {
            return (self.path == path).then(String::new);
        };
        let found = path.strip_prefix(before)?.strip_suffix(after)?;
        let is_one = !found.is_empty() && !found.contains('/');
        let text = || percent_decode_str(found).decode_utf8().ok().map(String::from);
        if is_one { text() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> Option<Result<(&'static str, String), Misfit>> {
        find(method, path).map(|found| found.map(|(row, id)| (row.path, id)))
    }

    #[test]
    fn a_path_finds_its_row_or_is_told_what_it_takes() {
        let of = |path, id: &str| Some(Ok((path, id.to_owned())));
        assert_eq!(found(&Method::GET, "/v1/agents"), of("/v1/agents", ""));
        assert_eq!(found(&Method::GET, "/v1/agents/runs"), of("/v1/agents/runs", ""));
        assert_eq!(found(&Method::HEAD, "/v1/agents/runs/x"), of("/v1/agents/runs/{id}", "x"));
        assert_eq!(
            found(&Method::POST, "/v1/agents/a%2Eb/runs"),
            of("/v1/agents/{id}/runs", "a.b")
        );
        assert_eq!(
            found(&Method::POST, "/v1/tools/crm.x/call"),
            of("/v1/tools/{id}/call", "crm.x")
        );
        for path in ["/v1/agents/", "/v1/agents/a/b", "/v1/agents/a/b/c", "/v1/tools/a/b/c"] {
            assert_eq!(found(&Method::GET, path), Some(Err(Misfit::Path)), "{path}");
        }
        for (path, allowed) in [
            ("/v1/agents/approvals/x", "GET, POST"),
            ("/v1/agents/runs/x/cancel", "POST"),
            ("/v1/agents/runs", "GET"),
        ] {
            assert_eq!(found(&Method::DELETE, path), Some(Err(Misfit::Method(allowed))), "{path}");
        }
        assert_eq!(found(&Method::GET, "/v1/agentsx"), None);
        assert_eq!(found(&Method::GET, "/v1/models"), None);
    }

    #[test]
    fn no_two_rows_share_a_method_and_a_path() {
        for row in TABLE {
            assert_eq!(TABLE.iter().filter(|other| *other == row).count(), 1, "{}", row.path);
        }
    }
}
