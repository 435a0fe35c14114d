//! Whatever is done to a run, wherever it is, it goes only where its table of states lets it.

use proptest::prelude::*;

use super::*;

/// Something that somebody does to a run, wherever it is: whoever is in the wrong place is heard and
/// changes nothing.
fn operate(run: &mut Run, operation: u8, flag: bool, now: u64) {
    if run.state.is_over() {
        return;
    }
    let first = run.calls.iter().find(|call| call.stage != Stage::Over);
    let id = first.map_or_else(|| "none".to_owned(), |call| call.request.id.clone());
    let by = "somebody".to_owned();
    let approval = "ap".to_owned();
    let words = if flag { json!({"answer": "So it is."}) } else { json!("Go on.") };
    let event = match operation {
        0 => Event::CancelAsked { by, reason: None, after_step: flag },
        1 => Event::Paused { by },
        2 => Event::Unpaused { by },
        3 => Event::Approved { id, approval, by, args: None, remember: flag, at: now },
        4 => Event::Rejected { id, approval, by, comment: None, expired: flag },
        5 => Event::InputGiven { request: "i".to_owned(), id, values: words, by },
        6 => {
            Event::InputGiven { request: "human".to_owned(), id: String::new(), values: words, by }
        }
        7 => Event::Escalated { reason: "why".to_owned(), id: Some(id), expires_at: Some(now + 9) },
        8 => Event::Unknown { id },
        9 => {
            let outcome = crate::agent::event::Resolution::Failed;
            Event::Resolved { id, outcome, result: None, by }
        }
        10 => Event::ApprovalAsked {
            id,
            approval,
            hash: "h".to_owned(),
            roles: Vec::new(),
            reason: String::new(),
            expires_at: now + 20,
        },
        11 => Event::ClientResult { id, parts: vec![Part::text("c")], is_error: flag },
        12 => Event::ChildStarted { id, run: RunId::new(), agent: "billing".to_owned() },
        13 if first.is_none() => {
            asked(run, true);
            return answered(run, &[("a", "look", json!({})), ("b", "theirs", json!({}))]);
        }
        14 if first.is_none() => {
            asked(run, true);
            return answered(run, &[]);
        }
        _ => Event::LimitHit { reason: StopReason::Budget },
    };
    run.apply(&event);
}

/// What whoever works at it makes of it next, without any work being done.
fn settle(run: &mut Run, now: u64) {
    if run.state.is_over() {
        return;
    }
    run.apply(&Event::Resumed { at: now, epoch: 1 });
    let (state, reason) = match run.next(now) {
        Step::Wait { state, .. } => return run.rests(state, now),
        Step::End(Ending { state, reason }) => (state, reason),
        Step::Finish => (RunState::Completed, None),
        Step::Plan
        | Step::Ask { .. }
        | Step::Act(_)
        | Step::TakeBack
        | Step::FallBack
        | Step::Limit(_) => return,
    };
    run.apply(&Event::Ended { state, reason, message: None, degraded: false, at: now });
}

/// The table of states. Whoever waits is at work in between, and nothing leaves what is over.
fn may_go(from: RunState, to: RunState) -> bool {
    if from.is_over() {
        return from == to;
    }
    match to {
        RunState::Queued | RunState::Rejected => from == to,
        RunState::Expired => from == RunState::WaitingHuman,
        _ => true,
    }
}

/// Any event about any call, sensible or not.
fn any_event() -> impl Strategy<Value = Event> {
    let id = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("x".to_owned())];
    (0..12_u8, id, any::<bool>(), 0..200_u64).prop_map(|(kind, id, flag, at)| match kind {
        0 => Event::Began { id, at },
        1 => Event::Done {
            id,
            parts: vec![Part::text("r")],
            value: None,
            bytes: 1,
            blob: None,
            cached: flag,
            attempts: 1,
            at,
            wire: None,
        },
        2 => Event::Refused { id, error: CallError::new("denied", "no") },
        3 => Event::ApprovalAsked {
            id,
            approval: "ap".to_owned(),
            hash: "h".to_owned(),
            roles: Vec::new(),
            reason: String::new(),
            expires_at: at,
        },
        4 => Event::Approved {
            id,
            approval: "ap".to_owned(),
            by: "p".to_owned(),
            args: None,
            remember: flag,
            at,
        },
        5 => Event::Unknown { id },
        6 => Event::LimitHit { reason: StopReason::Budget },
        7 => Event::Handoff {
            id,
            from: "support".to_owned(),
            to: "billing".to_owned(),
            summary: flag.then(|| "s".to_owned()),
        },
        8 => Event::Noted { text: "n".to_owned(), reason: flag.then(|| "repair".to_owned()) },
        9 => Event::InputAsked {
            request: "i".to_owned(),
            id,
            message: "?".to_owned(),
            schema: None,
            expires_at: at,
            fills: if flag { vec!["n".to_owned()] } else { Vec::new() },
        },
        10 => Event::InputGiven {
            request: "i".to_owned(),
            id,
            values: json!("yes"),
            by: "u".to_owned(),
        },
        _ => Event::ClientResult { id, parts: vec![Part::text("c")], is_error: flag },
    })
}

proptest! {
    /// Whatever happens: one result a call at most, none without its call, the same entries make
    /// the same state, and there is always something to do or to wait for.
    #[test]
    fn no_history_orphans_a_call_or_strands_a_run(
        events in proptest::collection::vec(any_event(), 0..40),
        now in 0..400_u64,
    ) {
        let tell = || {
            let mut run = begun(AgentLimits::default());
            asked(&mut run, true);
            answered(&mut run, &[("a", "look", json!({})), ("b", "theirs", json!({}))]);
            for event in &events {
                run.apply(event);
            }
            run
        };
        let run = tell();
        let mut seen = results(&run);
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen.len(), results(&run).len());
        prop_assert!(seen.iter().all(|id| id == "a" || id == "b"));
        prop_assert_eq!(run.seq, events.len() as u64 + 6);
        let other = tell();
        prop_assert_eq!(run.next(now), other.next(now));
        let closed = run.closed();
        prop_assert_eq!(closed.iter().filter_map(result_of).count(), 2);
    }

    /// Whatever people and programs do to a run, it goes only where it may go from where it is.
    #[test]
    fn no_sequence_of_operations_leaves_the_table_of_states(
        operations in proptest::collection::vec((0..16_u8, any::<bool>()), 0..60),
    ) {
        let mut run = begun(AgentLimits::default());
        let mut now = 1;
        let mut before = run.state;
        for (operation, flag) in operations {
            now += 1;
            operate(&mut run, operation, flag, now);
            settle(&mut run, now);
            prop_assert!(may_go(before, run.state), "{:?} -> {:?}", before, run.state);
            before = run.state;
        }
    }

    /// What is written of an entry is read as the same.
    #[test]
    fn an_entry_is_read_as_it_was_written(event in any_event()) {
        let text = serde_json::to_string(&event).unwrap();
        prop_assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
