//! All scripted vendors at once, and the gateway's config for them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;

use super::Vendor;
use crate::support::upstream::Request;
use crate::support::{Gateway, Upstream};

/// One server per vendor.
pub(crate) struct Fleet {
    vendors: HashMap<&'static str, Upstream>,
    /// Holds Google's credentials.
    folder: TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let mut vendors = HashMap::new();
        for vendor in Vendor::ALL {
            vendors.insert(vendor.name(), vendor.start().await);
        }
        Self { vendors, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn url(&self, vendor: Vendor) -> String {
        format!("http://{}", self.address(vendor))
    }

    pub(crate) fn address(&self, vendor: Vendor) -> SocketAddr {
        self.vendors[vendor.name()].address
    }

    /// Every question that a vendor was asked; asking for a token is none.
    pub(crate) fn questions(&self, vendor: Vendor) -> Vec<Request> {
        let requests = self.vendors[vendor.name()].requests();
        requests.into_iter().filter(|request| request.body.starts_with(b"{")).collect()
    }

    /// A gateway that knows each vendor by its name, with these sections besides.
    pub(crate) async fn gateway(&self, more: &str) -> Gateway {
        let mut sections = String::new();
        for vendor in Vendor::ALL {
            let (name, url) = (vendor.name(), self.url(vendor));
            let own = match vendor {
                Vendor::Anthropic | Vendor::Gemini | Vendor::Cohere => {
                    format!("base_url = \"{url}\"\napi_key = \"sk-{name}\"")
                }
                Vendor::Vertex => {
                    let path = self.credentials(&url);
                    format!(
                        "base_url = \"{url}\"\nproject = \"scripted\"\nlocation = \"global\"\n\
                         credentials = \"{path}\""
                    )
                }
                Vendor::Bedrock => format!(
                    "base_url = \"{url}\"\nregion = \"eu-central-1\"\n\
                     access_key_id = \"AKIDSCRIPTED\"\nsecret_access_key = \"scripted\""
                ),
                Vendor::Azure => format!("base_url = \"{url}/openai\"\napi_key = \"sk-{name}\""),
                _ => format!("base_url = \"{url}/v1\"\napi_key = \"sk-{name}\""),
            };
            let _ = writeln!(sections, "[providers.{name}]\nkind = \"{name}\"\n{own}\n");
        }
        Gateway::start("", &format!("{sections}{more}")).await
    }

    /// The file of a user who logged in, at a desk of ours.
    fn credentials(&self, url: &str) -> String {
        let path = self.folder.path().join("google.json");
        let file = json!({
            "type": "authorized_user", "client_id": "scripted", "client_secret": "scripted",
            "refresh_token": "scripted", "token_uri": format!("{url}/token"),
        });
        std::fs::write(&path, file.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}
