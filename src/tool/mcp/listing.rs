//! The list of a server's tools, page by page: what in it is no tool takes none of the others away.

use std::collections::BTreeSet;
use std::time::Duration;

use rmcp::model::{
    ClientRequest, CustomResult, ListToolsResult, PaginatedRequestParams, ServerResult, Tool,
};
use rmcp::service::Peer;
use rmcp::{RoleClient, ServiceError};
use serde_json::{Value, json};

use super::MOST_PAGES;
use super::answer::failure;

const MOST_TOOLS: usize = 2_000;
/// Of the name of what is no tool, so much is told.
const LONGEST_NAME: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) tools: Vec<Tool>,
    /// The names of what is no tool.
    pub(super) odd: BTreeSet<String>,
    pub(super) age: Option<Duration>,
}

// === impl Listing ===

impl Listing {
    pub(super) async fn read(peer: &Peer<RoleClient>) -> Result<Self, String> {
        let (mut listing, mut cursor) = (Self::default(), None);
        for _ in 0..MOST_PAGES {
            let from = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = match peer.list_tools(Some(from.clone())).await {
                // One that is no tool makes the page another answer than was asked for.
                Err(ServiceError::UnexpectedResponse) => listing.read_loosely(peer, from).await?,
                page => page.map_err(|error| failure(error).message)?,
            };
            listing.age = page.ttl_ms.map(Duration::from_millis);
            listing.tools.extend(page.tools);
            let next = page.next_cursor.filter(|next| !next.is_empty());
            if next.is_none() || listing.tools.len() >= MOST_TOOLS {
                listing.tools.truncate(MOST_TOOLS);
                return Ok(listing);
            }
            if next == cursor {
                break;
            }
            cursor = next;
        }
        Err("its list of tools does not end".to_owned())
    }

    /// A page without what is no tool.
    async fn read_loosely(
        &mut self,
        peer: &Peer<RoleClient>,
        from: PaginatedRequestParams,
    ) -> Result<ListToolsResult, String> {
        let wrong = || "its list of tools is none of MCP".to_owned();
        let request = json!({"method": "tools/list", "params": from});
        let request: ClientRequest = serde_json::from_value(request).map_err(|_| wrong())?;
        let mut page = match peer.send_request(request).await {
            Ok(ServerResult::ListToolsResult(page)) => return Ok(page),
            Ok(ServerResult::CustomResult(CustomResult(page))) => page,
            Ok(_) => return Err(wrong()),
            Err(error) => return Err(failure(error).message),
        };
        let Some(listed) = page.get_mut("tools").and_then(Value::as_array_mut) else {
            return Err(wrong());
        };
        listed.truncate(MOST_TOOLS);
        listed.retain(|listed| {
            let is_tool = serde_json::from_value::<Tool>(listed.clone()).is_ok();
            if !is_tool {
                let name = listed["name"].as_str().unwrap_or("(without a name)");
                self.odd.insert(name.chars().take(LONGEST_NAME).collect());
            }
            is_tool
        });
        serde_json::from_value(page).map_err(|_| wrong())
    }
}
