//! The two sides of embeddings, held against what providers send.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{EmbedUpstream, Form, Upstream, read_request, upstream, write_response};
use crate::canon::{EmbedInput, EmbedRequest, EmbedResponse, Usage};
use crate::dialect::row::tests::recordings;

fn side(which: Upstream) -> &'static dyn EmbedUpstream {
    upstream(which)
}

fn asked(body: &Value) -> EmbedRequest {
    read_request(body.to_string().as_bytes()).unwrap()
}

fn bodies(which: Upstream, request: &EmbedRequest) -> Vec<Value> {
    let written = side(which).write_requests(request).unwrap();
    written.iter().map(|written| serde_json::from_slice(&written.body).unwrap()).collect()
}

fn dropped(which: Upstream, request: &EmbedRequest) -> Vec<String> {
    let written = side(which).write_requests(request).unwrap();
    written.into_iter().flat_map(|written| written.dropped).map(Into::into).collect()
}

fn rich() -> EmbedRequest {
    asked(&json!({
        "model": "m", "input": ["one", "two"], "dimensions": 256, "encoding_format": "base64",
        "input_type": "search_query", "user": "u", "truncate": "END", "normalize": false, "x": 1,
    }))
}

#[test]
fn a_question_may_be_a_text_tokens_or_a_list_of_either() {
    let text = |text: &str| EmbedInput::Text(text.into());
    let tokens = |tokens: &[u64]| EmbedInput::Tokens(tokens.to_vec());
    for (input, expected) in [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2]), vec![tokens(&[1, 2])]),
        (json!([[1], [2, 3]]), vec![tokens(&[1]), tokens(&[2, 3])]),
    ] {
        assert_eq!(asked(&json!({"model": "m", "input": input})).inputs, expected);
    }
}

#[test]
fn a_question_that_makes_no_sense_is_refused_and_names_the_field() {
    for (body, field) in [
        (json!({"input": "a"}), "model"),
        (json!({"model": "m"}), "input"),
        (json!({"model": "m", "input": []}), "input"),
        (json!({"model": "m", "input": ["a", {}]}), "input[1]"),
        (json!({"model": "m", "input": [1, -2]}), "input[0]"),
        (json!({"model": "m", "input": vec!["a"; 2049]}), "input"),
        (json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
        (json!({"model": "m", "input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"model": 1, "input": "a"}), "model"),
    ] {
        let said = read_request(body.to_string().as_bytes()).unwrap_err().to_string();
        assert!(said.contains(&format!("`{field}`")), "{said}");
    }
}

#[test]
fn openai_is_asked_what_the_client_asked() {
    assert_eq!(
        bodies(Upstream::OpenAi, &rich()),
        [json!({
            "model": "m", "input": ["one", "two"], "dimensions": 256, "encoding_format": "base64",
            "input_type": "search_query", "user": "u", "truncate": "END", "normalize": false, "x": 1,
        })]
    );
    assert!(dropped(Upstream::OpenAi, &rich()).is_empty());
}

#[test]
fn each_provider_is_asked_in_its_own_words() {
    let cohere = json!({
        "input_type": "search_query", "embedding_types": ["float"], "output_dimension": 256,
        "truncate": "END", "texts": ["one", "two"],
    });
    assert_eq!(bodies(Upstream::BedrockCohere, &rich())[0], cohere);
    let mut with_model = cohere;
    with_model["model"] = json!("m");
    assert_eq!(bodies(Upstream::Cohere, &rich()), [with_model]);
    assert_eq!(dropped(Upstream::Cohere, &rich()), ["user", "normalize", "x"]);
    assert_eq!(
        bodies(Upstream::Titan, &rich()),
        [
            json!({"dimensions": 256, "normalize": false, "inputText": "one"}),
            json!({"dimensions": 256, "normalize": false, "inputText": "two"}),
        ]
    );
    assert_eq!(dropped(Upstream::Titan, &rich()), ["user", "truncate", "x", "input_type"]);
    let nova = bodies(Upstream::Nova, &rich());
    assert_eq!(nova.len(), 2);
    assert_eq!(
        nova[1],
        json!({"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": {
            "embeddingPurpose": "TEXT_RETRIEVAL", "embeddingDimension": 256,
            "text": {"truncationMode": "NONE", "value": "two"},
        }})
    );
}

#[test]
fn followers_of_openai_are_asked_only_what_they_know() {
    let mut request = rich();
    request.extras.insert("output_dtype".into(), json!("int8"));
    assert_eq!(
        bodies(Upstream::Mistral, &request),
        [
            json!({"model": "m", "input": ["one", "two"], "output_dtype": "int8", "output_dimension": 256})
        ]
    );
    let names = ["user", "truncate", "normalize", "x", "input_type"];
    assert_eq!(dropped(Upstream::Mistral, &request), names);
    request.inputs = vec![EmbedInput::Text("a".into()); 600];
    let asked = bodies(Upstream::Perplexity, &request);
    let sizes: Vec<_> = asked.iter().map(|body| body["input"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [512, 88]);
    assert_eq!((&asked[1]["dimensions"], asked[1].get("output_dtype")), (&json!(256), None));
    assert_eq!(asked[1]["encoding_format"], "base64_int8");
}

#[test]
fn the_first_titan_is_not_asked_for_what_it_has_not() {
    let mut request = rich();
    request.model = "amazon.titan-embed-text-v1".into();
    assert_eq!(bodies(Upstream::Titan, &request)[0], json!({"inputText": "one"}));
    let dropped = dropped(Upstream::Titan, &request);
    assert_eq!(dropped, ["user", "truncate", "x", "input_type", "dimensions", "normalize"]);
    request.model = "amazon.titan-embed-image-v1".into();
    let sized = json!({"embeddingConfig": {"outputEmbeddingLength": 256}, "inputText": "one"});
    assert_eq!(bodies(Upstream::Titan, &request)[0], sized);
}

#[test]
fn many_texts_become_several_questions_whose_answers_are_joined_in_order() {
    let texts: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let request = asked(&json!({"model": "m", "input": texts}));
    let bodies = bodies(Upstream::Cohere, &request);
    let sizes: Vec<_> = bodies.iter().map(|it| it["texts"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [96, 96, 8]);
    assert_eq!(bodies[0]["input_type"], "search_document");
    let answers: Vec<Vec<u8>> = bodies
        .iter()
        .map(|body| {
            let texts = body["texts"].as_array().unwrap();
            let vectors: Vec<Value> = texts
                .iter()
                .map(|text| json!([text.as_str().unwrap().parse::<f32>().unwrap()]))
                .collect();
            let cost = json!({"billed_units": {"input_tokens": 5.0}});
            json!({"embeddings": {"float": vectors}, "meta": cost}).to_string().into_bytes()
        })
        .collect();
    let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
    let response = side(Upstream::Cohere).read_response(&answers).unwrap();
    let vectors = response.vectors.iter().map(|vector| vector[0]);
    assert!(vectors.eq((0..200_u8).map(f32::from)));
    assert_eq!(response.usage.unwrap().total(), 15);
}

#[test]
fn tokens_are_for_openai_only() {
    let request = asked(&json!({"model": "m", "input": [1, 2]}));
    for which in [
        Upstream::Cohere,
        Upstream::BedrockCohere,
        Upstream::Titan,
        Upstream::Nova,
        Upstream::Mistral,
        Upstream::Perplexity,
    ] {
        let said = side(which).write_requests(&request).unwrap_err().to_string();
        assert!(said.contains("`input`"), "{said}");
    }
    assert_eq!(bodies(Upstream::OpenAi, &request)[0]["input"], json!([[1, 2]]));
}

#[test]
fn answers_of_every_provider_are_read() {
    let vector = vec![0.25, -1.5];
    for (which, body, tokens) in [
        (Upstream::Titan, json!({"embedding": [0.25, -1.5], "inputTextTokenCount": 3}), Some(3)),
        (
            Upstream::Nova,
            json!({"embeddings": [{"embeddingType": "TEXT", "embedding": [0.25, -1.5]}]}),
            None,
        ),
        (
            Upstream::BedrockCohere,
            json!({"embeddings": [[0.25, -1.5]], "response_type": "embeddings_floats"}),
            None,
        ),
        (Upstream::BedrockCohere, json!({"embeddings": {"float": [[0.25, -1.5]]}}), None),
        (
            Upstream::OpenAi,
            json!({"data": [{"index": 0, "embedding": "AACAPgAAwL8="}], "usage": {"prompt_tokens": 3}}),
            Some(3),
        ),
    ] {
        let response = side(which).read_response(&[body.to_string().as_bytes()]).unwrap();
        assert_eq!((response.vectors.len(), &response.vectors[0]), (1, &vector), "{which:?}");
        assert_eq!(response.usage.map(|usage| usage.input), tokens, "{which:?}");
        assert!(side(which).read_response(&[b"{}"]).is_err(), "{which:?}");
    }
    let broken = json!({"data": [{"embedding": "AAA="}]}).to_string();
    assert!(side(Upstream::OpenAi).read_response(&[broken.as_bytes()]).is_err());
}

#[test]
fn answers_that_come_out_of_order_are_put_back() {
    let body =
        json!({"data": [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]});
    let response = side(Upstream::OpenAi).read_response(&[body.to_string().as_bytes()]).unwrap();
    assert_eq!(response.vectors, [[0.0], [1.0]]);
}

proptest! {
    #[test]
    fn an_answer_is_read_as_it_was_written(
        vectors in proptest::collection::vec(proptest::collection::vec(-9.0_f32..9.0, 1..5), 0..4),
        base64 in any::<bool>(),
        input in 0..99_u64,
    ) {
        let request = EmbedRequest { model: "m".into(), base64, ..EmbedRequest::default() };
        let usage = Some(Usage { input, ..Usage::default() });
        let response = EmbedResponse { model: "n".into(), vectors, usage };
        let body = write_response(&response, &request, Form::OpenAi);
        prop_assert_eq!(side(Upstream::OpenAi).read_response(&[&body]).unwrap(), response);
    }

    #[test]
    fn a_question_is_read_as_it_was_written(
        texts in proptest::collection::vec("\\PC{0,9}", 1..4),
        dimensions in proptest::option::of(1..9_u32),
        base64 in any::<bool>(),
        purpose in proptest::option::of("[a-z]{1,4}"),
    ) {
        let inputs = texts.into_iter().map(EmbedInput::Text).collect();
        let request = EmbedRequest { model: "m".into(), inputs, dimensions, base64, purpose, ..EmbedRequest::default() };
        let written = side(Upstream::OpenAi).write_requests(&request).unwrap();
        prop_assert_eq!(read_request(&written[0].body).unwrap(), request);
    }

    #[test]
    fn no_bytes_break_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = read_request(&bytes);
        for which in [
            Upstream::OpenAi,
            Upstream::Cohere,
            Upstream::Titan,
            Upstream::Nova,
            Upstream::Perplexity,
        ] {
            let _ = side(which).read_response(&[&bytes]);
        }
    }
}

#[test]
fn every_recorded_answer_is_read() {
    for (folder, which) in
        [("openai-embeddings", Upstream::OpenAi), ("cohere-embed", Upstream::Cohere)]
    {
        let Some(recordings) = recordings(folder) else {
            println!("SWITCHPOINT_RECORDINGS is not set; nothing was read");
            return;
        };
        assert!(!recordings.is_empty());
        for (facts, body) in recordings {
            let id = facts["id"].as_str().unwrap_or_default();
            let read = side(which).read_response(&[&body]);
            if facts["status"] != 200 {
                assert!(read.is_err(), "{id}");
                continue;
            }
            let response = read.unwrap_or_else(|error| panic!("{id}: {error}"));
            assert!(!response.vectors.is_empty(), "{id}");
            let length = response.vectors[0].len();
            assert!(length > 0 && response.vectors.iter().all(|it| it.len() == length), "{id}");
            assert!(response.usage.is_some_and(|usage| usage.input > 0), "{id}");
            let request = EmbedRequest { base64: true, ..EmbedRequest::default() };
            let written = write_response(&response, &request, Form::OpenAi);
            let again = side(Upstream::OpenAi).read_response(&[&written]).unwrap();
            assert_eq!(again, response, "{id}");
        }
    }
}
