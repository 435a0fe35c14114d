//! Embeddings as Google's clients ask for them: one text, or a batch of questions.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Form;
use super::gemini::PURPOSES;
use crate::canon::{EmbedInput, EmbedRequest, EmbedResponse};
use crate::dialect::Misread;

/// Google's own limit.
const MOST_REQUESTS: usize = 100;

#[derive(Serialize)]
struct Values<'a> {
    values: &'a [f32],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    prompt_token_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Values<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<Vec<Values<'a>>>,
    usage_metadata: Tokens,
}

/// What a question says besides its text.
#[derive(Default, Clone, PartialEq)]
struct Settings {
    purpose: Option<String>,
    dimensions: Option<u32>,
    extras: Map<String, Value>,
}

pub(super) fn read(body: &[u8]) -> Result<(EmbedRequest, Form), Misread> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    let Some(list) = fields.get("requests") else {
        let (text, settings) = question(&fields, "")?;
        return Ok((settings.ask(vec![text]), Form::Google));
    };
    let list = list.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Misread::new("`requests` must be a list of questions."))?;
    if list.len() > MOST_REQUESTS {
        let said = format!("`requests` has {} questions; the most is {MOST_REQUESTS}.", list.len());
        return Err(Misread::new(said));
    }
    let (mut texts, mut common) = (Vec::new(), None);
    for (place, one) in list.iter().enumerate() {
        let path = format!("requests[{place}].");
        let lacks = || Misread::new(format!("`requests[{place}]` must be an object."));
        let (text, settings) = question(one.as_object().ok_or_else(lacks)?, &path)?;
        texts.push(text);
        if common.get_or_insert_with(|| settings.clone()) != &settings {
            let said = "The questions of a batch must want the same but for their texts.";
            return Err(Misread::new(said));
        }
    }
    Ok((common.unwrap_or_default().ask(texts), Form::GoogleBatch))
}

/// Either spelling of a field; Google takes both.
fn field<'a>(fields: &'a Map<String, Value>, names: [&str; 2]) -> Option<&'a Value> {
    names.iter().find_map(|name| fields.get(*name)).filter(|value| !value.is_null())
}

fn question(fields: &Map<String, Value>, path: &str) -> Result<(String, Settings), Misread> {
    let parts = fields.get("content").and_then(|content| content.get("parts"));
    let lacks = || Misread::new(format!("`{path}content.parts` must be a list of texts."));
    let parts = parts.and_then(Value::as_array).ok_or_else(lacks)?;
    let texts = parts.iter().map(|part| part.get("text").and_then(Value::as_str));
    let text = texts.collect::<Option<String>>().ok_or_else(lacks)?;
    let config = field(fields, ["embedContentConfig", "embed_content_config"]);
    let config = config.and_then(Value::as_object);
    let said =
        |names| config.and_then(|config| field(config, names)).or_else(|| field(fields, names));
    let wrong = |name: &str| Misread::new(format!("`{path}{name}` is not what it must be."));
    let dimensions = match said(["outputDimensionality", "output_dimensionality"]) {
        None => None,
        Some(value) => {
            let size = value.as_u64().and_then(|size| u32::try_from(size).ok());
            Some(size.filter(|size| *size > 0).ok_or_else(|| wrong("outputDimensionality"))?)
        }
    };
    let purpose = said(["taskType", "task_type"]).and_then(Value::as_str);
    let purpose = purpose.filter(|purpose| *purpose != "TASK_TYPE_UNSPECIFIED").map(|purpose| {
        let known = PURPOSES.iter().find(|(_, theirs)| *theirs == purpose);
        known.map_or(purpose, |(ours, _)| ours).to_owned()
    });
    let mut extras = Map::new();
    for (ours, names) in
        [("title", ["title", "title"]), ("auto_truncate", ["autoTruncate", "auto_truncate"])]
    {
        extras.extend(said(names).map(|value| (ours.to_owned(), value.clone())));
    }
    Ok((text, Settings { purpose, dimensions, extras }))
}

// === impl Settings ===

impl Settings {
    fn ask(self, texts: Vec<String>) -> EmbedRequest {
        let Self { purpose, dimensions, extras } = self;
        let inputs = texts.into_iter().map(EmbedInput::Text).collect();
        EmbedRequest { inputs, dimensions, purpose, extras, ..EmbedRequest::default() }
    }
}

pub(super) fn write(response: &EmbedResponse, form: Form) -> Vec<u8> {
    let mut vectors = response.vectors.iter().map(|values| Values { values });
    let usage = response.usage.unwrap_or_default();
    let (embedding, embeddings) = match form {
        Form::GoogleBatch => (None, Some(vectors.collect())),
        Form::Google | Form::OpenAi => (vectors.next(), None),
    };
    let usage_metadata = Tokens { prompt_token_count: usage.input_total() };
    serde_json::to_vec(&Answer { embedding, embeddings, usage_metadata }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::canon::Usage;

    fn asked(body: &Value) -> Result<(EmbedRequest, Form), String> {
        read(body.to_string().as_bytes()).map_err(|cause| cause.to_string())
    }

    #[test]
    fn one_text_and_a_batch_are_read_in_either_spelling() {
        let one = |text: &str| {
            json!({"model": "models/m", "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY", "output_dimensionality": 8, "title": "t"})
        };
        let (request, form) = asked(&one("a")).unwrap();
        assert_eq!((request.inputs, form), (vec![EmbedInput::Text("a".into())], Form::Google));
        assert_eq!(request.purpose.as_deref(), Some("search_query"));
        let (request, form) = asked(&json!({"requests": [one("a"), one("b")]})).unwrap();
        assert_eq!((request.inputs.len(), form), (2, Form::GoogleBatch));
        assert_eq!((request.dimensions, &request.extras["title"]), (Some(8), &json!("t")));
        let config = json!({"content": {"parts": [{"text": "a"}]},
            "embedContentConfig": {"taskType": "SEMANTIC_SIMILARITY"}});
        let purpose = asked(&config).unwrap().0.purpose;
        assert_eq!(purpose.as_deref(), Some("SEMANTIC_SIMILARITY"));
    }

    #[test]
    fn what_is_no_text_or_wants_several_things_at_once_is_refused_by_its_place() {
        let image = json!({"content": {"parts": [{"inlineData": {}}]}});
        assert!(asked(&image).unwrap_err().contains("`content.parts`"));
        let mixed = json!({"requests": [
            {"content": {"parts": [{"text": "a"}]}},
            {"content": {"parts": [{"text": "b"}]}, "taskType": "CLUSTERING"},
        ]});
        assert!(asked(&mixed).unwrap_err().contains("the same"));
        assert!(asked(&json!({"requests": []})).is_err());
    }

    #[test]
    fn vectors_are_told_as_they_were_asked_for() {
        let usage = Some(Usage { input: 3, ..Usage::default() });
        let response =
            EmbedResponse { vectors: vec![vec![0.5]], usage, ..EmbedResponse::default() };
        let told = |form| String::from_utf8(write(&response, form)).unwrap();
        let usage = r#""usageMetadata":{"promptTokenCount":3}}"#;
        assert_eq!(told(Form::Google), format!(r#"{{"embedding":{{"values":[0.5]}},{usage}"#));
        assert_eq!(
            told(Form::GoogleBatch),
            format!(r#"{{"embeddings":[{{"values":[0.5]}}],{usage}"#)
        );
    }
}
