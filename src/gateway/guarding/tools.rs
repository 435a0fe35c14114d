//! Guards look at a call of a tool that no model wants: at what the tool is given, and at what it
//! gives.

use serde_json::Value;

use super::{Guarding, Inputs, look, refusal, whole};
use crate::canon::{ChatRequest, ChatResponse, Choice, Content, Message, Part, Role, ToolCall};
use crate::config::Stage;
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;

/// The arguments as the tool may have them.
pub(in crate::gateway) async fn look_at_arguments(
    call: &mut Call,
    tool: &str,
    args: Value,
) -> Result<Value, Error> {
    if call.guard_lists(&[]).iter().all(|list| list.is_empty()) {
        return Ok(args);
    }
    let mut guarding = Box::<Guarding>::default();
    let added = guarding.add(call, &[]);
    call.guarding = Some(guarding);
    added?;
    look_at_answer(call, tool, args).await
}

/// The same for what the tool has asked for meanwhile.
pub(in crate::gateway) async fn look_at_answer(
    call: &Call,
    tool: &str,
    args: Value,
) -> Result<Value, Error> {
    if call.guarding.as_ref().is_none_or(|guarding| guarding.tool_args.is_empty()) {
        return Ok(args);
    }
    let wanted = ToolCall {
        id: call.record.id.simple(),
        name: tool.to_owned(),
        arguments: args.to_string(),
        custom: false,
    };
    let parts = vec![Part::new(Content::ToolCall(wanted))];
    let choices = vec![Choice { parts, ..Choice::default() }];
    let wanted = ChatResponse { choices, ..ChatResponse::default() };
    let seen = whole::look_at(call, tool, wanted).await.map_err(|blocked| refusal(&blocked))?;
    let parts = seen.choices.into_iter().flat_map(|choice| choice.parts);
    let mut texts = parts.filter_map(|part| match part.content {
        Content::ToolCall(wanted) => Some(wanted.arguments),
        _ => None,
    });
    let text = texts.next().unwrap_or_default();
    serde_json::from_str(&text).map_err(|_| {
        Error::new(
            Kind::GuardBlocked,
            "What a guard has left of what the tool is given is no JSON.",
        )
    })
}

/// Whether anything looks at what a tool has given.
pub(in crate::gateway) fn reads_results(call: &Call) -> bool {
    call.guarding.as_ref().is_some_and(|guarding| {
        let names: Vec<&str> = guarding.names.iter().map(String::as_str).collect();
        !call.house.guards.chain(&names, Stage::ToolResults).is_empty()
    })
}

/// What a tool has given, as its caller may have it; and whether it is something else now.
pub(in crate::gateway) async fn look_at_result(
    call: &mut Call,
    tool: &str,
    parts: Vec<Part>,
) -> Result<(Vec<Part>, bool), Error> {
    let Some(mut guarding) = call.guarding.take() else { return Ok((parts, false)) };
    let names: Vec<&str> = guarding.names.iter().map(String::as_str).collect();
    let results = call.house.guards.chain(&names, Stage::ToolResults);
    if results.is_empty() {
        call.guarding = Some(guarding);
        return Ok((parts, false));
    }
    let messages = vec![Message::new(Role::Tool, parts.clone())];
    let request = ChatRequest { model: tool.to_owned(), messages, ..ChatRequest::default() };
    let (mut question, inputs) =
        (Question::spoken(request), Inputs { results, ..Inputs::default() });
    let mut looked = look::look(&mut guarding, call, &mut question, &inputs).await;
    let late = guarding.take_late();
    call.guarding = Some(guarding);
    if let (Ok(()), Some(late)) = (&looked, late) {
        looked = late.ask().await;
    }
    looked?;
    let request = question.request_mut().map_err(|misread| Error::invalid(misread.0.clone()))?;
    let seen = std::mem::take(&mut request.messages).into_iter().flat_map(|it| it.parts).collect();
    let changed = seen != parts;
    Ok((seen, changed))
}
