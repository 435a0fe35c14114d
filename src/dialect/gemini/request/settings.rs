//! `generationConfig`, read and written.

use serde_json::{Map, Value, json};

use super::field::{camel, count, get, list, number, object, string, text, whole};
use super::read::{keep, plain};
use super::write::Draft;
use crate::canon::{ChatRequest, Dialect, Effort, Format, Thinking};
use crate::dialect::gemini::model::{self, Said};
use crate::dialect::{Inexpressible, Misread, lost, schema};

/// The voices that Gemini has, as its documentation of speech lists them.
const VOICES: &str = "Zephyr Puck Charon Kore Fenrir Leda Orus Aoede Callirrhoe Autonoe Enceladus \
    Iapetus Umbriel Algieba Despina Erinome Algenib Rasalgethi Laomedeia Achernar Alnilam Schedar \
    Gacrux Pulcherrima Achird Zubenelgenubi Vindemiatrix Sadachbia Sadaltager Sulafat";

/// As many as the API takes.
const MOST_STOPS: usize = 5;

pub(super) fn read(config: &Map<String, Value>, request: &mut ChatRequest) -> Result<(), Misread> {
    for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        let path = format!("generationConfig.{}", plain(name)?);
        let sampling = &mut request.sampling;
        match camel(name).as_ref() {
            "maxOutputTokens" => sampling.max_tokens = Some(count(value, &path)?),
            "temperature" => sampling.temperature = Some(number(value, &path)?),
            "topP" => sampling.top_p = Some(number(value, &path)?),
            "topK" => sampling.top_k = Some(count(value, &path)?),
            "seed" => sampling.seed = Some(whole(value, &path)?),
            "frequencyPenalty" => sampling.frequency_penalty = Some(number(value, &path)?),
            "presencePenalty" => sampling.presence_penalty = Some(number(value, &path)?),
            "candidateCount" => sampling.choices = u32::try_from(count(value, &path)?).ok(),
            "stopSequences" => {
                let stops = list(value, &path)?.iter().map(|stop| string(stop, &path));
                sampling.stop = stops.collect::<Result<_, _>>()?;
            }
            "responseLogprobs" => {
                if value == &json!(true) {
                    sampling.logprobs.get_or_insert(0);
                }
            }
            "logprobs" => sampling.logprobs = u32::try_from(count(value, &path)?).ok(),
            "thinkingConfig" => read_thinking(object(value, &path)?, &path, request)?,
            // Read together below.
            "responseMimeType" | "responseSchema" | "responseJsonSchema" | "speechConfig" => {}
            "responseModalities" if modality(value) == Some("TEXT") => {}
            "responseModalities" if modality(value) == Some("AUDIO") => {
                request.audio.get_or_insert_with(|| json!({ "format": "pcm16" }));
            }
            _ => keep(request, path, value.clone()),
        }
    }
    read_format(config, request);
    read_speech(config, request);
    Ok(())
}

/// The one modality that is asked for.
fn modality(value: &Value) -> Option<&str> {
    match value.as_array()?.as_slice() {
        [] => Some("TEXT"),
        [Value::String(only)] => Some(only),
        _ => None,
    }
}

fn read_format(config: &Map<String, Value>, request: &mut ChatRequest) {
    let schema = match (get(config, "responseJsonSchema"), get(config, "responseSchema")) {
        (Some(schema), _) => Some(schema.clone()),
        (None, openapi) => openapi.map(schema::from_openapi),
    };
    match (text(config, "responseMimeType"), schema) {
        (None | Some("text/plain" | ""), _) => {}
        (Some("application/json"), None) => request.format = Format::JsonObject,
        (Some("application/json"), Some(schema)) => {
            let name = "response".to_owned();
            request.format = Format::JsonSchema { name, description: None, schema, strict: None };
        }
        (Some(other), _) => {
            let other = Value::from(other);
            keep(request, "generationConfig.responseMimeType".into(), other);
            if let Some(schema) = get(config, "responseSchema") {
                keep(request, "generationConfig.responseSchema".into(), schema.clone());
            }
        }
    }
}

fn read_speech(config: &Map<String, Value>, request: &mut ChatRequest) {
    let Some(speech) = get(config, "speechConfig") else { return };
    let inside = |value: &Value, name: &str| get(value.as_object()?, name).cloned();
    let voice = inside(speech, "voiceConfig")
        .and_then(|voice| inside(&voice, "prebuiltVoiceConfig"))
        .and_then(|voice| inside(&voice, "voiceName"));
    match (voice, &mut request.audio) {
        (Some(voice), Some(audio))
            if speech.as_object().is_some_and(|speech| speech.len() == 1) =>
        {
            audio["voice"] = voice;
        }
        _ => keep(request, "generationConfig.speechConfig".into(), speech.clone()),
    }
}

fn read_thinking(
    config: &Map<String, Value>,
    path: &str,
    request: &mut ChatRequest,
) -> Result<(), Misread> {
    // Nothing is shown here unless it is asked for.
    let mut thinking = Thinking { visible: Some(false), ..Thinking::default() };
    for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        match camel(name).as_ref() {
            "includeThoughts" => thinking.visible = Some(value == &Value::Bool(true)),
            "thinkingLevel" => {
                let level = string(value, &format!("{path}.{name}"))?.to_ascii_lowercase();
                thinking.effort = Effort::parse(&level);
            }
            // -1: as much as the model likes.
            "thinkingBudget" if whole(value, &format!("{path}.{name}"))? >= 0 => {
                thinking.budget = Some(count(value, path)?);
            }
            _ => keep(
                request,
                format!("generationConfig.thinkingConfig.{}", plain(name)?),
                value.clone(),
            ),
        }
    }
    request.reasoning = Some(thinking);
    Ok(())
}

pub(super) fn write(draft: &mut Draft<'_>) -> Result<(), Inexpressible> {
    let sampling = &draft.request.sampling;
    if sampling.stop.len() > MOST_STOPS {
        return Err(Inexpressible("`stop` holds more than the 5 texts that Gemini takes".into()));
    }
    let stops = (!sampling.stop.is_empty()).then(|| json!(sampling.stop));
    let top = sampling.logprobs.filter(|top| *top > 0);
    let frequency = penalty(draft, "frequency_penalty", sampling.frequency_penalty);
    let presence = penalty(draft, "presence_penalty", sampling.presence_penalty);
    let fields = [
        ("maxOutputTokens", sampling.max_tokens.map(|value| json!(value))),
        ("temperature", sampling.temperature.map(|value| json!(value))),
        ("topP", sampling.top_p.map(|value| json!(value))),
        ("topK", sampling.top_k.map(|value| json!(value))),
        ("stopSequences", stops),
        ("seed", sampling.seed.map(|seed| json!(narrow(seed)))),
        ("frequencyPenalty", frequency),
        ("presencePenalty", presence),
        ("candidateCount", sampling.choices.map(|value| json!(value))),
        ("responseLogprobs", sampling.logprobs.map(|_| json!(true))),
        ("logprobs", top.map(|top| json!(top))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            draft.config.insert(name.into(), value);
        }
    }
    draft.dropped.add_if(sampling.logit_bias.is_some(), "logit_bias");
    write_format(draft)?;
    write_speech(draft);
    write_thinking(draft);
    Ok(())
}

/// A penalty, if the model takes any; Google's own clients hear from Google where it does not.
/// One of nothing is what there is unasked.
fn penalty(draft: &mut Draft<'_>, name: &'static str, asked: Option<f64>) -> Option<Value> {
    let asked = asked?;
    let is_own = draft.request.extras.dialect == Some(Dialect::Gemini);
    let takes = is_own || draft.model.penalties;
    draft.dropped.add_if(!takes && asked != 0.0, name);
    takes.then(|| json!(asked))
}

/// A seed as the 32-bit number that Gemini takes; always the same for the same seed.
fn narrow(seed: i64) -> i64 {
    i32::try_from(seed).map_or_else(|_| seed & i64::from(i32::MAX), i64::from)
}

fn write_format(draft: &mut Draft<'_>) -> Result<(), Inexpressible> {
    let request = draft.request;
    if request.format == Format::Text || shape_in_words(draft).is_some() {
        return Ok(());
    }
    draft.config.insert("responseMimeType".into(), json!("application/json"));
    if let Format::JsonSchema { schema, .. } = &request.format {
        let (name, schema) =
            draft.schema(schema, ("responseJsonSchema", "responseSchema"), "response_format")?;
        draft.config.insert(name.into(), schema);
    }
    Ok(())
}

/// What is said to a model that takes no shape for its answer beside its tools.
pub(super) fn shape_in_words(draft: &Draft<'_>) -> Option<String> {
    let request = draft.request;
    let is_own = request.extras.dialect == Some(Dialect::Gemini);
    if !draft.model.either || request.tools.is_empty() || is_own {
        return None;
    }
    lost::shape_in_words(&request.format)
}

fn write_speech(draft: &mut Draft<'_>) {
    let Some(audio) = &draft.request.audio else { return };
    draft.config.insert("responseModalities".into(), json!(["AUDIO"]));
    let voice = audio["voice"].as_str();
    if let Some(voice) = voice.filter(|voice| VOICES.split(' ').any(|known| known == *voice)) {
        let voice = json!({ "voiceConfig": { "prebuiltVoiceConfig": { "voiceName": voice } } });
        draft.config.insert("speechConfig".into(), voice);
    } else {
        draft.dropped.add_if(voice.is_some(), "audio.voice");
    }
    let format = audio["format"].as_str();
    draft.dropped.add_if(format.is_some_and(|format| format != "pcm16"), "audio.format");
}

fn write_thinking(draft: &mut Draft<'_>) {
    let Some(asked) = &draft.request.reasoning else { return };
    let mut config = Map::new();
    let (said, lost) = model::thinking(asked, draft.model.thought);
    match said {
        Some((name, Said::Word(word))) => _ = config.insert(name.into(), json!(word)),
        Some((name, Said::Number(number))) => _ = config.insert(name.into(), json!(number)),
        None => {}
    }
    draft.dropped.add_if(lost, "reasoning_effort");
    // Elsewhere thoughts are shown to whoever asks for them; here only on demand.
    let thinks = asked.effort != Some(Effort::None) && asked.budget != Some(0);
    if thinks && draft.model.thought != model::Thought::None {
        config.insert("includeThoughts".into(), json!(asked.visible.unwrap_or(true)));
    }
    if !config.is_empty() {
        draft.config.insert("thinkingConfig".into(), Value::Object(config));
    }
}
