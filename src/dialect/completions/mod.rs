//! OpenAI's older text completions, for clients whose model is reached by a chat.
//!
//! The prompt becomes one user message, and the answer's text goes back. Where a server has text
//! completions of its own, the bytes pass as they are, or are only read, by `native`.

mod native;
mod writer;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use self::native::NATIVE;
use self::writer::{Writer, write_logprobs};
use super::chat::read_request::{Fields, read_stop};
use super::chat::reader::write_reason;
use super::openai::write_usage;
use super::{ClientSide, Context, Misread, WriteStream};
use crate::canon::{ChatRequest, ChatResponse, Choice, Message, Part, Role, Sampling};

pub static CODEC: Completions = Completions;

/// The dialect's one side.
#[derive(Debug)]
pub struct Completions;

impl ClientSide for Completions {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        let mut fields = Fields(serde_json::from_slice(body)?);
        refuse_what_a_chat_lacks(&mut fields)?;
        let prompt = read_prompt(fields.take("prompt"))?;
        let stop = fields.take("stop");
        let wrong = || Misread::new("`stop` must be a string or an array of strings.");
        let stop = stop.map(|stop| read_stop(&stop).ok_or_else(wrong)).transpose()?;
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let seed = fields.take("seed").and_then(|seed| seed.as_i64());
        let options = fields.take("stream_options");
        Ok(ChatRequest {
            model: fields.string("model")?.unwrap_or_default(),
            stream: fields.boolean("stream")?.unwrap_or_default(),
            messages: vec![Message::new(Role::User, vec![Part::text(prompt)])],
            // The 16 tokens that this API has by default would be too few for a chat.
            sampling: Sampling {
                max_tokens: fields.count("max_tokens")?,
                temperature: fields.number("temperature")?,
                top_p: fields.number("top_p")?,
                top_k: fields.count("top_k")?,
                stop: stop.unwrap_or_default(),
                seed,
                frequency_penalty: fields.number("frequency_penalty")?,
                presence_penalty: fields.number("presence_penalty")?,
                choices: fields.count("n")?.map(small),
                logprobs: fields.count("logprobs")?.map(small),
                logit_bias: fields.take("logit_bias").and_then(|bias| bias.as_object().cloned()),
            },
            user: fields.string("user")?,
            include_usage: options.is_some_and(|options| options["include_usage"] == true),
            ..ChatRequest::default()
        })
    }

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        let choices: Vec<Value> = response.choices.iter().enumerate().map(write_choice).collect();
        let mut body = json!({
            "id": format!("cmpl-{}", context.id),
            "object": "text_completion",
            "created": response.created.unwrap_or(context.created),
            "model": if response.model.is_empty() { context.model } else { &response.model },
            "choices": choices,
        });
        if let Some(usage) = &response.usage {
            body["usage"] = write_usage(usage);
        }
        body.to_string().into_bytes()
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        Box::new(Writer::new(context))
    }
}

/// What changes the text and has no place in a chat.
fn refuse_what_a_chat_lacks(fields: &mut Fields) -> Result<(), Misread> {
    let refused = |name: &str| {
        Misread::new(format!("`{name}` is not possible here: this model is reached by a chat."))
    };
    if fields.take("suffix").is_some_and(|suffix| suffix != "") {
        return Err(refused("suffix"));
    }
    if fields.take("echo").is_some_and(|echo| echo == true) {
        return Err(refused("echo"));
    }
    // One more than is asked for is what the field is for.
    let best = fields.take("best_of").and_then(|best| best.as_u64()).unwrap_or(1);
    if best > 1 {
        return Err(refused("best_of"));
    }
    Ok(())
}

fn read_prompt(prompt: Option<Value>) -> Result<String, Misread> {
    let one = "`prompt` must be one text: this model is reached by a chat.";
    match prompt {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(text)] => Ok(text.clone()),
            _ => Err(Misread::new(one)),
        },
        Some(_) => Err(Misread::new(one)),
        None => Err(Misread::new("`prompt` must be given.")),
    }
}

fn write_choice((index, choice): (usize, &Choice)) -> Value {
    let text: String = choice.parts.iter().filter_map(Part::as_text).collect();
    json!({
        "text": text,
        "index": index,
        "logprobs": choice.logprobs.as_ref().map(|logprobs| write_logprobs(logprobs, 0)),
        "finish_reason": write_reason(choice.finish.reason).0,
    })
}
