//! What things of servers are called here: `files__read` for `read` of `files`, and
//! `files+file:///a` for what it calls `file:///a`. Where one server is all that is offered, its own
//! names may be kept.

use serde_json::Value;

/// The names of one server's things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) server: &'a str,
    /// They are kept as they are.
    pub(super) bare: bool,
}

// === impl Names ===

impl Names<'_> {
    pub(super) fn name(self, own: &str) -> String {
        if self.bare { own.to_owned() } else { format!("{}__{own}", self.server) }
    }

    pub(super) fn own_name(self, name: &str) -> Option<&str> {
        if self.bare {
            return Some(name);
        }
        name.strip_prefix(self.server)?.strip_prefix("__")
    }

    pub(super) fn uri(self, own: &str) -> String {
        if self.bare { own.to_owned() } else { format!("{}+{own}", self.scheme()) }
    }

    pub(super) fn own_uri(self, uri: &str) -> Option<&str> {
        if self.bare {
            return Some(uri);
        }
        uri.strip_prefix(&*self.scheme())?.strip_prefix('+')
    }

    /// Gives the addresses in a result the form in which they can be read here.
    pub(super) fn readdress(self, result: &mut Value) {
        if self.bare {
            return;
        }
        for key in ["content", "contents", "messages"] {
            for item in result[key].as_array_mut().into_iter().flatten() {
                self.readdress_one(item);
            }
        }
    }

    fn readdress_one(self, item: &mut Value) {
        // A block of content, what is embedded in it, and that of a message.
        for pointer in ["/uri", "/resource/uri", "/content/uri", "/content/resource/uri"] {
            if let Some(Value::String(uri)) = item.pointer_mut(pointer) {
                *uri = self.uri(uri);
            }
        }
    }

    /// As the scheme of an address may begin.
    fn scheme(self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        self.server.chars().map(|c| if plain(c) { c } else { '-' }).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Names;

    #[test]
    fn addresses_are_given_back_as_they_were_told() {
        let names = Names { server: "kb_one", bare: false };
        assert_eq!(names.uri("file:///a"), "kb-one+file:///a");
        assert_eq!(names.own_uri("kb-one+file:///a"), Some("file:///a"));
        assert_eq!(names.own_uri("other+file:///a"), None);
        assert_eq!(names.own_name(&names.name("greet")), Some("greet"));
        assert_eq!(names.own_name("kb_two__greet"), None);
        let bare = Names { bare: true, ..names };
        assert_eq!(bare.own_uri(&bare.uri("file:///a")), Some("file:///a"));
    }

    #[test]
    fn a_result_has_addresses_that_can_be_read_here() {
        let names = Names { server: "kb", bare: false };
        let mut result = json!({
            "content": [{"type": "resource_link", "uri": "a:b"}, {"type": "text", "text": "a:b"}],
            "messages": [{"content": {"type": "resource", "resource": {"uri": "a:c"}}}],
        });
        names.readdress(&mut result);
        assert_eq!(result["content"][0]["uri"], "kb+a:b");
        assert_eq!(result["content"][1]["text"], "a:b");
        assert_eq!(result["messages"][0]["content"]["resource"]["uri"], "kb+a:c");
    }
}
