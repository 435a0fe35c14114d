//! The rules that Google's own libraries rely on, checked on what we write.

use serde_json::Value;

/// Checks a stream of events; gives how many there were.
pub(super) fn check(bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(bytes).unwrap();
    let chunks = text.split_terminator("\n\n").map(|event| {
        let data = event.strip_prefix("data: ").expect("an event is one line of data");
        assert!(!data.contains('\n'), "an event is one line");
        serde_json::from_str(data).unwrap()
    });
    check_chunks(&chunks.collect::<Vec<Value>>())
}

pub(super) fn check_array(bytes: &[u8]) -> usize {
    check_chunks(&serde_json::from_slice::<Vec<Value>>(bytes).unwrap())
}

fn check_chunks(chunks: &[Value]) -> usize {
    let mut finished = Vec::new();
    for (place, chunk) in chunks.iter().enumerate() {
        assert!(chunk["modelVersion"].is_string() && chunk["responseId"].is_string(), "{chunk}");
        assert_eq!(chunk["responseId"], chunks[0]["responseId"]);
        for candidate in chunk["candidates"].as_array().expect("candidates are a list") {
            let index = candidate["index"].as_u64().unwrap();
            assert!(!finished.contains(&index), "nothing follows a finish: {chunk}");
            assert_eq!(candidate["content"]["role"], "model");
            let parts = candidate["content"]["parts"].as_array().unwrap();
            assert!(!parts.is_empty());
            parts.iter().for_each(check_part);
            if !candidate["finishReason"].is_null() {
                assert!(candidate["finishReason"].is_string());
                finished.push(index);
            }
        }
        if !chunk["usageMetadata"].is_null() {
            assert_eq!(place, chunks.len() - 1, "usage comes last");
            check_usage(&chunk["usageMetadata"]);
        }
    }
    chunks.len()
}

fn check_part(part: &Value) {
    let contents = [
        "text",
        "functionCall",
        "inlineData",
        "fileData",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
    ];
    let holds = contents.iter().filter(|name| !part[**name].is_null()).count();
    assert_eq!(holds, 1, "a part holds one thing: {part}");
    if let Some(call) = part.get("functionCall") {
        assert!(call["args"].is_object() && call["name"].is_string(), "{call}");
        let id = call["id"].as_str().unwrap();
        assert!((1..=40).contains(&id.len()), "{id}");
        assert!(
            id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
            "{id}"
        );
    }
    if let Some(signature) = part.get("thoughtSignature") {
        let signature = signature.as_str().unwrap();
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
        assert!(signature.bytes().all(base64), "libraries read it as base64: {signature}");
    }
}

fn check_usage(usage: &Value) {
    let count = |name: &str| usage[name].as_u64().unwrap_or_default();
    let sum =
        count("promptTokenCount") + count("candidatesTokenCount") + count("thoughtsTokenCount");
    assert_eq!(sum, count("totalTokenCount"), "{usage}");
    assert!(count("cachedContentTokenCount") <= count("promptTokenCount"));
}
