//! What is posted: one message, or several at once, as one version of the protocol has it.

use bytes::Bytes;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, ProtocolVersion, RequestId,
};
use serde_json::Value;

/// Messages that come at once.
const MOST_AT_ONCE: usize = 100;
/// What else than these a client asks, it may not ask here.
const METHODS: [&str; 15] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
];
/// Those that only the versions with sessions have.
const OF_SESSIONS: [&str; 5] =
    ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];
/// What a request of the version without sessions says of itself.
const VERSION: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
/// Counted where they are made, or not at all.
const COUNTED_ELSEWHERE: [&str; 5] =
    ["completion/complete", "ping", "prompts/get", "resources/read", "tools/call"];

/// All that came with one request.
#[derive(Debug)]
pub(super) enum Posted {
    One(Message),
    Several(Vec<Message>),
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    /// What it asks for, if it is a request.
    pub(super) asks: Option<Asks>,
    /// What cannot be answered otherwise.
    pub(super) fault: Option<ErrorData>,
}

#[derive(Debug)]
pub(super) struct Asks {
    pub(super) id: RequestId,
    pub(super) method: &'static str,
    /// The version with which a session would begin.
    version: Option<ProtocolVersion>,
}

// === impl Posted ===

impl Posted {
    pub(super) fn read(bytes: Bytes) -> Result<Self, ErrorData> {
        let said: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ErrorData::parse_error(format!("That is not JSON: {error}"), None))?;
        match said {
            Value::Array(all) if all.is_empty() || all.len() > MOST_AT_ONCE => {
                Err(invalid(format!("There are between 1 and {MOST_AT_ONCE} messages at once.")))
            }
            Value::Array(all) => {
                Ok(Self::Several(all.into_iter().map(Message::among_others).collect()))
            }
            said => {
                let message = Message::read(bytes, said);
                match message.fault {
                    // Nobody can be told by its id.
                    Some(fault) if message.asks.is_none() => Err(fault),
                    fault => Ok(Self::One(Message { fault, ..message })),
                }
            }
        }
    }
}

// === impl Message ===

impl Message {
    fn among_others(said: Value) -> Self {
        let mut message = Self::read(Bytes::from(said.to_string()), said);
        if message.asks.as_ref().is_some_and(|asks| asks.method == "initialize") {
            message.fault = Some(invalid("A session begins with one message."));
        }
        message
    }

    fn read(bytes: Bytes, said: Value) -> Self {
        if let Err(fault) = shape(&said) {
            return Self { bytes, asks: None, fault: Some(invalid(fault)) };
        }
        let method = said["method"].as_str().and_then(known);
        let id = said.get("id").cloned().and_then(|id| serde_json::from_value(id).ok());
        let is_gone = said.pointer(VERSION).is_some()
            && method.is_some_and(|method| OF_SESSIONS.contains(&method));
        let is_request = said.get("method").is_some() && id.is_some();
        let read = serde_json::from_value::<ClientJsonRpcMessage>(said);
        let (version, fits) = match &read {
            Ok(ClientJsonRpcMessage::Request(it)) => match &it.request {
                ClientRequest::InitializeRequest(it) => {
                    (Some(it.params.protocol_version.clone()), true)
                }
                // The last that is tried, with any params.
                ClientRequest::CustomRequest(_) => (None, method.is_none() || is_gone),
                _ => (None, true),
            },
            Ok(_) => (None, true),
            Err(_) => (None, false),
        };
        let fault = (!fits).then(|| match method {
            Some(method) => {
                let message = format!("The params of `{method}` are not what the protocol says.");
                ErrorData::invalid_params(message, None)
            }
            None => invalid("That is no message of the protocol."),
        });
        let method = method.unwrap_or("other");
        let asks = id.filter(|_| is_request).map(|id| Asks { id, method, version });
        Self { bytes, asks, fault }
    }
}

// === impl Asks ===

impl Asks {
    /// Whether it counts as a call of its key here.
    pub(super) fn counts(&self) -> bool {
        !COUNTED_ELSEWHERE.contains(&self.method)
    }

    /// Whether it needs a place among the calls in flight.
    pub(super) fn makes_work(&self) -> bool {
        self.method != "ping" && !self.listens()
    }

    /// Whether a session begins with it in which several messages may come at once.
    pub(super) fn wants_batches(&self) -> bool {
        self.version == Some(ProtocolVersion::V_2025_03_26)
    }

    /// Whether its answer has no end.
    pub(super) fn listens(&self) -> bool {
        self.method == "subscriptions/listen"
    }
}

fn known(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

/// What every message is by JSON-RPC, and by the protocol, which has no `id` that is null.
fn shape(said: &Value) -> Result<(), &'static str> {
    let Some(members) = said.as_object() else {
        return Err("A message is an object.");
    };
    if said["jsonrpc"] != "2.0" {
        return Err("A message has `jsonrpc`, which is \"2.0\".");
    }
    match members.get("id") {
        Some(id) if !(id.is_string() || id.is_i64()) => {
            return Err("An `id` is a text or an integer.");
        }
        _ => {}
    }
    match members.get("method") {
        Some(Value::String(_)) => Ok(()),
        Some(_) => Err("A `method` is a text."),
        None if members.contains_key("result") || members.contains_key("error") => Ok(()),
        None => Err("A message has a `method`, a `result` or an `error`."),
    }
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ErrorData {
    ErrorData::new(ErrorCode::INVALID_REQUEST, message, None)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Posted;

    fn fault(said: &'static str) -> Option<i32> {
        match Posted::read(Bytes::from_static(said.as_bytes())) {
            Ok(Posted::One(message)) => message.fault.map(|fault| fault.code.0),
            Ok(Posted::Several(all)) => all.into_iter().find_map(|it| Some(it.fault?.code.0)),
            Err(fault) => Some(fault.code.0),
        }
    }

    #[test]
    fn each_mistake_has_the_code_that_json_rpc_gives_it() {
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert_eq!(fault(request), None);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), None);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":"a","result":{"action":"decline"}}"#), None);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"things/do","params":{}}"#), None);
        for not_json in ["", "{", "nonsense", "{\"id\":1}}"] {
            assert_eq!(fault(not_json), Some(-32700), "{not_json}");
        }
        for no_request in [
            "1",
            "{}",
            "[]",
            "[1]",
            r#"{"id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
        ] {
            assert_eq!(fault(no_request), Some(-32600), "{no_request}");
        }
        // It is unknown there, whatever its params.
        let gone = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(fault(gone), None);
        for wrong in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["echo"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read"}"#,
        ] {
            assert_eq!(fault(wrong), Some(-32602), "{wrong}");
        }
    }
}
