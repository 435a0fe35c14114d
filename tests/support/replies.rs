//! Answers in the dialect of chat completions, for upstreams that behave.

use serde_json::json;

/// A whole chat completion.
pub(crate) const REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15},"x_new_field":{"kept":[1,2.50]}}"#;

pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// The event that opens a stream and says nothing yet.
pub(crate) fn role() -> String {
    choice(r#"{"role":"assistant","content":""}"#, "null")
}

pub(crate) fn word(text: &str) -> String {
    choice(&json!({ "content": text }).to_string(), "null")
}

pub(crate) fn finish() -> String {
    choice("{}", r#""stop""#)
}

pub(crate) fn usage() -> String {
    event(r#""choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}"#)
}

/// A whole stream that says this.
pub(crate) fn says(text: &str) -> Vec<String> {
    vec![role(), word(text), finish(), usage(), DONE.to_owned()]
}

/// A whole stream that wants these called: of each its id, its name and its arguments.
pub(crate) fn calls(calls: &[(&str, &str, &str)]) -> Vec<String> {
    let call = |(place, (id, name, args)): (usize, &(&str, &str, &str))| {
        let call = json!({"tool_calls": [{"index": place, "id": id, "type": "function",
            "function": {"name": name, "arguments": args}}]});
        choice(&call.to_string(), "null")
    };
    let mut events = vec![role()];
    events.extend(calls.iter().enumerate().map(call));
    events.extend([choice("{}", r#""tool_calls""#), usage(), DONE.to_owned()]);
    events
}

/// An event of a stream with one choice.
pub(crate) fn choice(delta: &str, reason: &str) -> String {
    event(&format!(r#""choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]"#))
}

pub(crate) fn event(fields: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
         \"created\":1760000000,\"model\":\"served\",{fields}}}\n\n"
    )
}

/// Role, two words, finish, usage, `[DONE]`: what an upstream sends that was asked for usage.
pub(crate) fn answer() -> Vec<String> {
    vec![role(), word("Hello"), word(" there."), finish(), usage(), DONE.to_owned()]
}

/// The same as a client sees it that did not ask for usage.
pub(crate) fn shown() -> String {
    let mut events = answer();
    events.remove(4);
    events.concat()
}

/// A request for a stream.
pub(crate) fn ask_stream(model: &str) -> String {
    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hi"}}]}}"#)
}

/// A request for a whole answer.
pub(crate) fn ask(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#)
}
