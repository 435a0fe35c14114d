//! No JSON Schema breaks the rewording for a target, and what comes out is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use switchpoint::dialect::schema::{
    BEDROCK, COHERE, GEMINI, GEMINI_OPENAPI, OPENAI_STRICT, compile, from_openapi, holds_reference,
};

fuzz_target!(|input: &[u8]| {
    let Ok(schema) = serde_json::from_slice::<Value>(input) else { return };
    for profile in [&BEDROCK, &COHERE, &GEMINI, &GEMINI_OPENAPI, &OPENAI_STRICT] {
        let Ok(compiled) = compile(&schema, profile) else { continue };
        // What a reference stands for is written out, so more may come out than went in.
        let most = 10_000 * (input.len() + 100);
        assert!(compiled.schema.to_string().len() <= most, "{}", compiled.schema);
    }
    let _ = holds_reference(&from_openapi(&schema));
});
