//! A run, told event by event.

mod states;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::agent::definition::{Definition, Member, ToolDefinition};
use crate::agent::event::{Asking, CallError, Doer, Event, Trigger, Wishes};
use crate::canon::{Effect, Finish, FinishReason, Role, ToolCall};
use crate::config::{
    AgentBudget, AgentLimits, ContextTerms, HandoffInput, OnFilter, OnUnknown, Planner, StreamMode,
};

pub(in crate::agent) fn tool(name: &str, effect: Effect) -> ToolDefinition {
    ToolDefinition {
        name: name.to_owned(),
        alias: name.to_owned(),
        version: "1".to_owned(),
        description: String::new(),
        effect,
        input: json!({"type": "object"}),
        high_risk: false,
        untrusted: false,
        repeatable: false,
        asks_user: false,
        agent: None,
        approval: None,
        probe: None,
        undo: None,
        most: None,
    }
}

pub(in crate::agent) fn definition(limits: AgentLimits) -> Arc<Definition> {
    let member = Member {
        missing: Vec::new(),
        version: "1".to_owned(),
        description: String::new(),
        route: "smart".to_owned(),
        prompt: "You help.".to_owned(),
        prompt_digest: String::new(),
        prompt_version: None,
        tools: vec![tool("look", Effect::Read), tool("pay", Effect::Once)],
        handoffs: vec!["billing".to_owned()],
        handoff_input: HandoffInput::Summary,
        fallback: None,
        context: ContextTerms::default(),
        confidence: None,
        on_unknown: OnUnknown::Escalate,
        on_filter: OnFilter::Reject,
        guards: Vec::new(),
        output_schema: None,
    };
    let members = [("support".to_owned(), member.clone()), ("billing".to_owned(), member)];
    Arc::new(Definition {
        agent: "support".to_owned(),
        version: "1".to_owned(),
        members: members.into(),
        limits,
        budget: AgentBudget::default(),
        max_handoffs: 2,
        max_depth: 4,
        client_tools: true,
        client_system: false,
        compensates: false,
        degraded: None,
        planner: Planner::None,
        stream: StreamMode::Live,
        require_tools: Vec::new(),
    })
}

pub(in crate::agent) fn created() -> Created {
    Created {
        agent: "support".to_owned(),
        version: "1".to_owned(),
        definition: String::new(),
        previous: None,
        messages: vec![Message::new(Role::User, vec![Part::text("Where is it?")])],
        client_tools: Vec::new(),
        wishes: Wishes::default(),
        caller: Value::Null,
        user: None,
        session: None,
        depth: 0,
        budget: None,
        replay_of: None,
        effects: false,
        compensates: false,
        blocked: None,
        forked_from: None,
        source: None,
        labels: BTreeMap::new(),
        headers: Vec::new(),
        trace: None,
        baggage: None,
        webhook: None,
        trigger: Trigger::Api,
        at: 0,
    }
}

pub(in crate::agent) fn begun(limits: AgentLimits) -> Run {
    let mut run = Run::new(RunId::new(), created(), definition(limits), Vec::new());
    run.apply(&Event::Started { at: 0, asks: None });
    run
}

pub(in crate::agent) fn asked(run: &mut Run, tools: bool) {
    let call = run.retry.unwrap_or(run.asks + 1);
    let model = "smart".to_owned();
    let (digest, max_tokens, input_estimate) = (String::new(), 100, 10);
    let (summary, clamped, cost_estimate) = (false, false, 0);
    let asking = Asking {
        call,
        summary,
        model,
        digest,
        tools,
        max_tokens,
        clamped,
        input_estimate,
        cost_estimate,
        at: 1,
    };
    run.apply(&Event::Asked(asking));
}

/// The model answers, and wants these called, with these arguments.
pub(in crate::agent) fn answered(run: &mut Run, calls: &[(&str, &str, Value)]) {
    let parts = calls.iter().map(|(id, name, args)| {
        let (id, name, arguments) = ((*id).to_owned(), (*name).to_owned(), args.to_string());
        Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom: false }))
    });
    let parts = std::iter::once(Part::text("So.")).chain(parts).collect();
    let reason = if calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    run.apply(&Event::Answered {
        call: run.asks,
        parts,
        finish: Finish { reason, ..Finish::default() },
        usage: Usage { input: 10, output: 5, ..Usage::default() },
        estimated: false,
        cost: Some(3),
        provider: "up".to_owned(),
        model: "m".to_owned(),
        fallback_level: 0,
        cached: false,
        at: 2,
        id: None,
    });
    for (id, name, args) in calls {
        run.apply(&Event::Requested(Box::new(requested(run.tool_calls + 1, id, name, args))));
    }
}

fn requested(number: u32, id: &str, name: &str, args: &Value) -> Requested {
    Requested {
        id: id.to_owned(),
        number,
        tool: name.to_owned(),
        alias: name.to_owned(),
        version: "1".to_owned(),
        args: args.clone(),
        effect: if name == "pay" { Effect::Once } else { Effect::Read },
        key: format!("key-{number}"),
        doer: if name == "theirs" { Doer::Client } else { Doer::Tool },
        at: 3,
    }
}

pub(in crate::agent) fn done(run: &mut Run, id: &str) {
    run.apply(&Event::Began { id: id.to_owned(), at: 4 });
    run.apply(&Event::Done {
        id: id.to_owned(),
        parts: vec![Part::text("found")],
        value: None,
        bytes: 5,
        blob: None,
        cached: false,
        attempts: 1,
        at: 5,
        wire: None,
    });
}

fn results(run: &Run) -> Vec<String> {
    run.transcript.iter().filter_map(result_of).map(|result| result.id.clone()).collect()
}

#[test]
fn a_run_asks_acts_asks_and_ends() {
    let mut run = begun(AgentLimits::default());
    assert_eq!(run.next(0), Step::Ask { tools: true });
    asked(&mut run, true);
    answered(&mut run, &[("a", "look", json!({}))]);
    assert_eq!(run.next(5), Step::Act(vec!["a".to_owned()]));
    done(&mut run, "a");
    assert_eq!(run.next(6), Step::Ask { tools: true });
    asked(&mut run, true);
    answered(&mut run, &[]);
    assert_eq!(run.next(7), Step::Finish);
    assert_eq!((run.asks, run.tool_calls, run.cost), (2, 1, 6));
}

#[test]
fn results_stand_in_the_order_of_the_calls_whichever_ends_first() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    let calls = ["a", "b", "c"].map(|id| (id, "look", json!({"id": id})));
    answered(&mut run, &calls);
    for id in ["c", "a", "b"] {
        done(&mut run, id);
    }
    assert_eq!(results(&run), ["a", "b", "c"]);
}

#[test]
fn the_last_step_is_for_an_answer_without_tools() {
    let limits = AgentLimits { steps: 2, ..AgentLimits::default() };
    let mut run = begun(limits);
    asked(&mut run, true);
    answered(&mut run, &[("a", "look", json!({}))]);
    done(&mut run, "a");
    assert_eq!(run.next(1), Step::Limit(StopReason::MaxSteps));
    run.apply(&Event::LimitHit { reason: StopReason::MaxSteps });
    assert_eq!(run.next(1), Step::Ask { tools: false });
    asked(&mut run, false);
    answered(&mut run, &[]);
    let end = Ending { state: RunState::Incomplete, reason: Some(StopReason::MaxSteps) };
    assert_eq!(run.next(1), Step::End(end));
    assert_eq!(run.asks, 2);
}

#[test]
fn what_was_said_to_its_end_is_the_answer_however_late() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    answered(&mut run, &[]);
    assert_eq!(run.next(u64::MAX / 2), Step::Finish);
}

#[test]
fn the_same_call_again_and_again_is_a_loop_in_whatever_order_its_arguments_stand() {
    let mut run = begun(AgentLimits { steps: 50, ..AgentLimits::default() });
    for round in 0..5 {
        assert_eq!(run.next(1), Step::Ask { tools: true }, "round {round}");
        asked(&mut run, true);
        let args = if round % 2 == 0 { json!({"q": 1, "p": 2}) } else { json!({"p": 2, "q": 1}) };
        answered(&mut run, &[("a", "look", args)]);
        done(&mut run, "a");
    }
    assert_eq!(run.next(1), Step::Limit(StopReason::LoopDetected));
}

#[test]
fn what_waits_for_a_person_waits_and_goes_on_when_it_is_decided() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    answered(&mut run, &[("a", "pay", json!({})), ("b", "look", json!({}))]);
    let ask = |id: &str| Event::ApprovalAsked {
        id: id.to_owned(),
        approval: "ap1".to_owned(),
        hash: "h".to_owned(),
        roles: Vec::new(),
        reason: String::new(),
        expires_at: 100,
    };
    run.apply(&ask("a"));
    assert_eq!(run.next(1), Step::Act(vec!["b".to_owned()]), "the other one goes on");
    done(&mut run, "b");
    let waits = Step::Wait { state: RunState::WaitingApproval, until: Some(100) };
    assert_eq!(run.next(1), waits);
    assert_eq!(run.next(100), Step::Act(vec!["a".to_owned()]), "its time is over");
    run.apply(&Event::Approved {
        id: "a".to_owned(),
        approval: "ap1".to_owned(),
        by: "lead".to_owned(),
        args: None,
        remember: false,
        at: 9,
    });
    assert_eq!(run.next(1), Step::Act(vec!["a".to_owned()]));
    done(&mut run, "a");
    assert_eq!(results(&run), ["a", "b"]);
}

#[test]
fn what_was_allowed_and_is_to_be_tried_again_is_not_asked_for_again() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    answered(&mut run, &[("a", "pay", json!({}))]);
    let (id, approval) = ("a".to_owned(), "ap1".to_owned());
    let (hash, roles, reason) = ("h".to_owned(), Vec::new(), String::new());
    let expires_at = 100;
    run.apply(&Event::ApprovalAsked { id, approval, hash, roles, reason, expires_at });
    let (id, approval, by) = ("a".to_owned(), "ap1".to_owned(), "lead".to_owned());
    run.apply(&Event::Approved { id, approval, by, args: None, remember: false, at: 9 });
    run.apply(&Event::Began { id: "a".to_owned(), at: 9 });
    run.apply(&Event::Unknown { id: "a".to_owned() });
    assert_eq!(run.next(10), Step::Wait { state: RunState::WaitingHuman, until: None });
    let (id, by) = ("a".to_owned(), "lead".to_owned());
    let outcome = crate::agent::event::Resolution::Retry;
    run.apply(&Event::Resolved { id, outcome, result: None, by });
    assert_eq!(run.call("a").unwrap().stage, Stage::Approved { hash: "h".to_owned() });
}

#[test]
fn other_arguments_that_a_person_has_put_in_have_a_digest_and_a_key_of_their_own() {
    let edited = |args: Option<Value>| {
        let mut run = begun(AgentLimits::default());
        asked(&mut run, true);
        answered(&mut run, &[("a", "pay", json!({"amount": 5}))]);
        let key = run.call("a").unwrap().request.key.clone();
        let (id, approval) = ("a".to_owned(), "ap1".to_owned());
        let hash = run.hash_of("pay", &json!({"amount": 5})).unwrap();
        let (roles, reason, expires_at) = (Vec::new(), String::new(), 100);
        let asked = hash.clone();
        run.apply(&Event::ApprovalAsked { id, approval, hash, roles, reason, expires_at });
        let (id, approval, by) = ("a".to_owned(), "ap1".to_owned(), "lead".to_owned());
        run.apply(&Event::Approved { id, approval, by, args, remember: false, at: 9 });
        let call = run.call("a").unwrap().clone();
        (call.allowed == Some(asked), call.request.key == key, call)
    };
    let (is_asked, is_key, call) = edited(None);
    assert!(is_asked && is_key, "{call:?}");
    let (is_asked, is_key, call) = edited(Some(json!({"amount": 4})));
    assert!(!is_asked && !is_key, "{call:?}");
    let again = edited(Some(json!({"amount": 4}))).2;
    assert_eq!((&again.request.key, &again.allowed), (&call.request.key, &call.allowed));
    assert_ne!(edited(Some(json!({"amount": 3}))).2.request.key, call.request.key);
    let (is_asked, is_key, call) = edited(Some(json!({"amount": 5})));
    assert!(is_asked && is_key, "it is the same call: {call:?}");
}

#[test]
fn time_that_is_waited_for_people_is_not_counted() {
    let mut run = begun(AgentLimits::default());
    run.rests(RunState::WaitingApproval, 10_000);
    run.apply(&Event::Resumed { at: 900_000, epoch: 2 });
    assert_eq!(run.worked(905_000), 15_000);
    assert_eq!(run.next(905_000), Step::Ask { tools: true });
    assert_eq!(run.next(2_000_000), Step::Limit(StopReason::Timeout));
}

#[test]
fn of_a_journal_that_is_read_again_no_wait_counts_as_work() {
    let mut run = begun(AgentLimits::default());
    let started = run.started.unwrap();
    let taken_up = |at, epoch| Event::Resumed { at: started + at, epoch };
    let noted = || Event::Noted { text: "On it.".to_owned(), reason: None };
    // Ten seconds of work, two waits of an hour, and as long without a process.
    let entries = [taken_up(3_610_000, 2), noted(), taken_up(7_220_000, 3), noted()];
    let times = [10_000, 3_610_000, 3_620_000, 7_220_000].map(|at| started + at);
    run.replays(&entries, &times);
    assert_eq!(run.worked(started + 7_230_000), 30_000);
}

#[test]
fn a_model_that_was_asked_when_the_process_ended_is_asked_by_the_same_number() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    let open = run.open_ask.clone().unwrap();
    run.apply(&Event::AskFailed {
        call: open.call,
        code: "lost".to_owned(),
        message: String::new(),
        usage: Usage::default(),
        cost: None,
        estimated: true,
        lost: true,
        at: 1,
        id: None,
        retry_after: None,
    });
    assert_eq!((run.retry, run.failures), (Some(1), 0));
    asked(&mut run, true);
    assert_eq!(run.asks, 1);
}

#[test]
fn calls_of_the_clients_tools_wait_for_the_client() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    answered(&mut run, &[("a", "look", json!({})), ("b", "theirs", json!({}))]);
    assert_eq!(run.next(1), Step::Act(vec!["a".to_owned()]));
    done(&mut run, "a");
    assert_eq!(run.next(1), Step::Wait { state: RunState::WaitingClient, until: None });
    let (id, is_error) = ("b".to_owned(), false);
    run.apply(&Event::ClientResult { id, parts: vec![Part::text("theirs")], is_error });
    assert_eq!(run.next(1), Step::Ask { tools: true });
}

#[test]
fn a_run_that_is_paused_or_cancelled_begins_nothing() {
    let mut run = begun(AgentLimits::default());
    run.apply(&Event::Paused { by: "me".to_owned() });
    assert_eq!(run.next(1), Step::Wait { state: RunState::Paused, until: None });
    run.apply(&Event::Unpaused { by: "me".to_owned() });
    assert_eq!(run.next(1), Step::Ask { tools: true });
    let (by, reason, after_step) = ("me".to_owned(), None, false);
    run.apply(&Event::CancelAsked { by, reason, after_step });
    let end = Ending { state: RunState::Cancelled, reason: None };
    assert_eq!(run.next(1), Step::End(end));
}

#[test]
fn every_call_has_its_result_when_the_run_is_over() {
    let mut run = begun(AgentLimits::default());
    asked(&mut run, true);
    answered(&mut run, &[("a", "look", json!({})), ("b", "pay", json!({}))]);
    done(&mut run, "a");
    let transcript = run.closed();
    let told: Vec<_> = transcript.iter().filter_map(result_of).map(|it| it.id.clone()).collect();
    assert_eq!(told, ["a", "b"]);
}
