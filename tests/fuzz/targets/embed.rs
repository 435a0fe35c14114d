//! Any question for vectors that is read can be put to every provider, and no answer breaks a
//! reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use switchpoint::dialect::embed::{Form, Upstream, read_request, upstream, write_response};

const UPSTREAMS: [Upstream; 7] = [
    Upstream::OpenAi,
    Upstream::Cohere,
    Upstream::BedrockCohere,
    Upstream::Titan,
    Upstream::Nova,
    Upstream::Gemini,
    Upstream::VertexPredict,
];

fuzz_target!(|input: &[u8]| {
    let request = read_request(input).ok();
    for upstream in UPSTREAMS.map(upstream) {
        if let Some(Ok(bodies)) = request.as_ref().map(|request| upstream.write_requests(request)) {
            for written in bodies {
                let body: Value = serde_json::from_slice(&written.body).unwrap();
                assert!(body.is_object(), "{body}");
            }
        }
        let Ok(answer) = upstream.read_response(&[input]) else { continue };
        let request = request.clone().unwrap_or_default();
        let told = write_response(&answer, &request, Form::OpenAi);
        assert!(serde_json::from_slice::<Value>(&told).is_ok());
    }
});
