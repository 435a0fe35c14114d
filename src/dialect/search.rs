//! A search of the web that the provider makes itself, put from the words of one API into those of
//! another: OpenAI's `web_search` and `web_search_options`, Anthropic's `web_search_20250305` and
//! Gemini's `googleSearch`, as their documentation had them in November 2026.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::canon::{ChatRequest, Dialect, Foreign, Tool};

/// What chat completions say in the place of a tool.
const OPTIONS: &str = "web_search_options";
/// What a client is told that its target did not search with.
const NAME: &str = "web_search";

const CONTEXT: &str = "search_context_size";

/// What a client wants of a search.
#[derive(Debug, Default)]
struct Search {
    /// How much of what is found the model is to read: `low`, `medium` or `high`.
    context: Option<String>,
    /// Where its user is: `city`, `region`, `country` and `timezone`.
    place: Option<Map<String, Value>>,
    /// Domains, and no others.
    allowed: Option<Value>,
    blocked: Option<Value>,
    /// So many searches at most.
    uses: Option<u64>,
}

/// Whether the provider is to search.
pub fn is_wanted(request: &ChatRequest) -> bool {
    has_options(request) || request.tools.iter().any(|tool| read(tool).is_some())
}

/// The question with its searches in the words of `into`, and the names of what is lost. What
/// cannot be said there stays as it is; whoever writes it names it.
pub fn abroad(
    request: Cow<'_, ChatRequest>,
    into: Dialect,
) -> (Cow<'_, ChatRequest>, Vec<Cow<'static, str>>) {
    let speaks = matches!(into, Dialect::Messages | Dialect::Responses | Dialect::Gemini);
    if !speaks || request.extras.dialect == Some(into) || !is_wanted(&request) {
        return (request, Vec::new());
    }
    let has_functions = request.tools.iter().any(|tool| !matches!(tool, Tool::Hosted(_)));
    // Gemini does one or the other.
    if into == Dialect::Gemini && has_functions {
        return (request, Vec::new());
    }
    let (mut request, mut lost) = (request.into_owned(), Vec::new());
    for tool in &mut request.tools {
        if let Some(search) = read(tool)
            && let Some(value) = search.write(into, &mut lost)
        {
            *tool = Tool::Hosted(Foreign { dialect: into, value });
        }
    }
    if has_options(&request) {
        let search = Search::of_options(&request.extras.fields[OPTIONS]);
        if let Some(value) = search.write(into, &mut lost) {
            request.extras.fields.shift_remove(OPTIONS);
            request.tools.push(Tool::Hosted(Foreign { dialect: into, value }));
        }
    }
    (Cow::Owned(request), lost)
}

fn has_options(request: &ChatRequest) -> bool {
    let is_chat = request.extras.dialect == Some(Dialect::Chat);
    is_chat && request.extras.fields.get(OPTIONS).is_some_and(Value::is_object)
}

fn read(tool: &Tool) -> Option<Search> {
    let Tool::Hosted(Foreign { dialect, value }) = tool else { return None };
    let kind = value["type"].as_str().unwrap_or_default();
    let given = |value: &Value| Some(value.clone()).filter(|it| !it.is_null());
    match dialect {
        Dialect::Messages if kind.starts_with("web_search_") => Some(Search {
            place: place(&value["user_location"]),
            allowed: given(&value["allowed_domains"]),
            blocked: given(&value["blocked_domains"]),
            uses: value["max_uses"].as_u64(),
            context: None,
        }),
        Dialect::Responses if kind == NAME || kind.starts_with("web_search_") => Some(Search {
            context: value[CONTEXT].as_str().map(str::to_owned),
            place: place(&value["user_location"]),
            allowed: given(&value["filters"]["allowed_domains"]),
            ..Search::default()
        }),
        Dialect::Gemini => {
            let search = value.get("googleSearch").or_else(|| value.get("google_search"))?;
            let blocked = ["excludeDomains", "exclude_domains"].map(|name| given(&search[name]));
            Some(Search { blocked: blocked.into_iter().flatten().next(), ..Search::default() })
        }
        _ => None,
    }
}

fn place(location: &Value) -> Option<Map<String, Value>> {
    let known = ["city", "region", "country", "timezone"];
    let said = known.iter().filter_map(|name| {
        let said = location.get(*name).filter(|said| said.is_string())?;
        Some(((*name).to_owned(), said.clone()))
    });
    Some(said.collect()).filter(|said: &Map<_, _>| !said.is_empty())
}

// === impl Search ===

impl Search {
    fn of_options(options: &Value) -> Self {
        Self {
            context: options[CONTEXT].as_str().map(str::to_owned),
            place: place(&options["user_location"]["approximate"]),
            ..Self::default()
        }
    }

    /// `None` where the target would look where it must not.
    fn write(self, into: Dialect, lost: &mut Vec<Cow<'static, str>>) -> Option<Value> {
        let Self { context, place, allowed, blocked, uses } = self;
        let location = place.map(|place| {
            let kind = ("type".to_owned(), json!("approximate"));
            Value::Object(std::iter::once(kind).chain(place).collect())
        });
        // As much as is usual need not be said.
        let context = context.filter(|context| context != "medium").map(Value::from);
        let uses = uses.map(Value::from);
        let filters = allowed.as_ref().map(|allowed| json!({ "allowed_domains": allowed }));
        let (mut tool, said, left) = match into {
            Dialect::Messages => (
                json!({ "type": "web_search_20250305", "name": NAME }),
                vec![
                    ("max_uses", uses),
                    ("allowed_domains", allowed),
                    ("blocked_domains", blocked),
                    ("user_location", location),
                ],
                vec![(CONTEXT, context)],
            ),
            Dialect::Responses if blocked.is_none() => (
                json!({ "type": NAME }),
                vec![(CONTEXT, context), ("filters", filters), ("user_location", location)],
                vec![("max_uses", uses)],
            ),
            Dialect::Gemini if allowed.is_none() && blocked.is_none() => (
                json!({ "googleSearch": {} }),
                Vec::new(),
                vec![(CONTEXT, context), ("max_uses", uses), ("user_location", location)],
            ),
            _ => return None,
        };
        for (name, value) in said {
            if let Some(value) = value {
                tool[name] = value;
            }
        }
        let left = left.into_iter().filter(|(_, value)| value.is_some());
        lost.extend(left.map(|(name, _)| Cow::Owned(format!("{NAME}.{name}"))));
        Some(tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{ClientSide, chat, gemini, messages, responses};

    /// What becomes of the tools of a question, and of its options, and what is lost.
    fn sent(client: &dyn ClientSide, body: &Value, into: Dialect) -> (Vec<Value>, Vec<String>) {
        let request = client.read_request(body.to_string().as_bytes()).unwrap();
        let (request, lost) = abroad(Cow::Owned(request), into);
        let tools = request.tools.iter().filter_map(|tool| match tool {
            Tool::Hosted(foreign) if foreign.dialect == into => Some(foreign.value.clone()),
            _ => None,
        });
        (tools.collect(), lost.into_iter().map(Cow::into_owned).collect())
    }

    /// The same search in the words of each client.
    fn questions(place: &Value) -> [Value; 4] {
        let near = json!({"type": "approximate", "approximate": {"city": "Bern", "country": "CH"}});
        let user = json!({"role": "user", "content": "Hi"});
        let of_chat = json!({"messages": [user], "web_search_options":
            {"search_context_size": "high", "user_location": near}});
        let of_messages = json!({"max_tokens": 9, "messages": [user], "tools": [
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3,
             "allowed_domains": ["a.example"], "user_location": place}]});
        let of_responses = json!({"input": "Hi", "tools": [{"type": "web_search",
            "search_context_size": "low", "filters": {"allowed_domains": ["a.example"]}}]});
        let of_gemini = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "tools": [{"google_search": {}}]});
        [of_chat, of_messages, of_responses, of_gemini]
    }

    #[test]
    fn a_search_is_asked_for_in_the_words_of_the_target() {
        let place = json!({"type": "approximate", "city": "Bern", "country": "CH"});
        let [of_chat, of_messages, of_responses, of_gemini] = questions(&place);
        let anthropic = json!({"type": "web_search_20250305", "name": "web_search"});
        let with = |tool: &Value, more: Value| {
            let both = [tool, &more].into_iter().filter_map(Value::as_object).flatten();
            Value::Object(both.map(|(name, value)| (name.clone(), value.clone())).collect())
        };
        let openai = json!({"type": "web_search"});
        let google = json!({"googleSearch": {}});
        let allowed = json!({"allowed_domains": ["a.example"]});
        let (much, most, here) =
            ("web_search.search_context_size", "web_search.max_uses", "web_search.user_location");
        let chat: &dyn ClientSide = &chat::CODEC;
        for (client, body, into, tool, lost) in [
            (
                chat,
                &of_chat,
                Dialect::Messages,
                with(&anthropic, json!({"user_location": place})),
                vec![much],
            ),
            (chat, &of_chat, Dialect::Gemini, google.clone(), vec![much, here]),
            (
                chat,
                &of_chat,
                Dialect::Responses,
                with(&openai, json!({"search_context_size": "high", "user_location": place})),
                vec![],
            ),
            (
                &messages::CODEC,
                &of_messages,
                Dialect::Responses,
                with(&openai, json!({"filters": allowed, "user_location": place})),
                vec![most],
            ),
            (
                &responses::CODEC,
                &of_responses,
                Dialect::Messages,
                with(&anthropic, allowed.clone()),
                vec![much],
            ),
            (&gemini::CODEC, &of_gemini, Dialect::Messages, anthropic.clone(), vec![]),
            (&gemini::CODEC, &of_gemini, Dialect::Responses, openai.clone(), vec![]),
        ] {
            let (tools, names) = sent(client, body, into);
            assert_eq!(tools, [tool], "{body} into {into:?}");
            assert_eq!(names, lost, "{body} into {into:?}");
        }
        // It would search where it must not.
        assert_eq!(sent(&messages::CODEC, &of_messages, Dialect::Gemini), (vec![], vec![]));
    }

    #[test]
    fn gemini_is_not_asked_to_search_beside_functions_and_nobody_unasked() {
        let user = json!({"role": "user", "content": "Hi"});
        let function = json!({"type": "function", "function": {"name": "f"}});
        let both = json!({"messages": [user], "web_search_options": {}, "tools": [function]});
        assert_eq!(sent(&chat::CODEC, &both, Dialect::Gemini), (vec![], vec![]));
        assert_eq!(sent(&chat::CODEC, &both, Dialect::Messages).0.len(), 1);
        let none = json!({"messages": [user], "tools": [function], "web_search_options": null});
        for into in [Dialect::Messages, Dialect::Gemini, Dialect::Responses, Dialect::Chat] {
            assert_eq!(sent(&chat::CODEC, &none, into), (vec![], vec![]), "{into:?}");
        }
    }
}
