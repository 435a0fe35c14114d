//! The first who asks leads, the others follow, and nobody waits for what will not come.

use std::future::poll_fn;
use std::sync::Arc;

use crate::cache::{Flights, Follower, Lead, Next, Seat};
use crate::canon::{Delta, Event};
use crate::error::{Error, Kind};

const MOST: usize = 1 << 20;

fn word(text: &str) -> Event {
    Event::Delta { choice: 0, delta: Delta::Text(text.to_owned()) }
}

fn lead(flights: &Arc<Flights>) -> Lead {
    match flights.join([1; 32], None) {
        Seat::Lead(lead) => lead,
        Seat::Follow(_) => panic!("somebody leads"),
    }
}

fn follow(flights: &Arc<Flights>) -> Follower {
    match flights.join([1; 32], None) {
        Seat::Follow(follower) => follower,
        Seat::Lead(_) => panic!("nobody leads"),
    }
}

/// All that a follower is told, and whether that was all there is.
async fn heard(mut follower: Follower) -> (Vec<Event>, bool) {
    let mut heard = Vec::new();
    loop {
        match poll_fn(|context| follower.poll_next(context)).await {
            Next::Events(events) => heard.extend(events.iter().cloned()),
            Next::End => return (heard, true),
            Next::Failed(_) => return (heard, false),
        }
    }
}

#[tokio::test]
async fn whoever_joins_hears_all_from_the_beginning() {
    let flights = Arc::default();
    let lead = lead(&flights);
    let early = follow(&flights);
    lead.tape().push(vec![word("a")], MOST);
    let late = follow(&flights);
    let listening = tokio::join!(heard(early), heard(late), async {
        lead.tape().push(vec![word("b"), Event::End], MOST);
        lead.tape().end();
    });
    let all = vec![word("a"), word("b"), Event::End];
    assert_eq!((listening.0, listening.1), ((all.clone(), true), (all, true)));
}

#[tokio::test]
async fn when_the_leader_is_gone_those_who_follow_know_and_the_next_one_leads() {
    let flights = Arc::default();
    let first = lead(&flights);
    let follower = follow(&flights);
    drop(first);
    assert_eq!(heard(follower).await, (Vec::new(), false));
    lead(&flights).fail(Some(Error::new(Kind::UpstreamError, "no")));
    let _ = lead(&flights);
}

#[tokio::test]
async fn all_who_were_told_of_a_failure_follow_the_same_one_next_however_late() {
    let flights: Arc<Flights> = Arc::default();
    let first = lead(&flights);
    let before = follow(&flights).tape();
    first.fail(Some(Error::new(Kind::UpstreamError, "no")));
    let Seat::Lead(second) = flights.join([1; 32], Some(&before)) else { panic!("nobody leads") };
    assert_eq!(second.tape().lineage, 1);
    second.fail(Some(Error::new(Kind::UpstreamError, "no")));
    // The second has failed already; who comes only now is told so, and asks nobody.
    let Seat::Follow(late) = flights.join([1; 32], Some(&before)) else { panic!("asked again") };
    assert_eq!((late.lineage(), heard(late).await), (1, (Vec::new(), false)));
    assert_eq!(lead(&flights).tape().lineage, 0, "who has not been told asks");
}

#[test]
fn nobody_can_follow_whom_the_leader_has_found_nobody_following() {
    let flights = Arc::default();
    let first = lead(&flights);
    let follower = follow(&flights);
    assert!(!first.close_if_unfollowed());
    drop(follower);
    assert!(first.close_if_unfollowed());
    let second = lead(&flights);
    drop(first);
    // The end of the first is not the end of the second.
    let _ = follow(&flights);
    drop(second);
}

#[test]
fn what_is_too_long_is_held_for_those_who_are_there_only() {
    let flights = Arc::default();
    let long = lead(&flights);
    long.tape().push(vec![word(&"x".repeat(1000))], 500);
    let other = lead(&flights);
    let follower = follow(&flights);
    other.tape().push(vec![word(&"x".repeat(1000))], 500);
    other.tape().end();
    drop((long, other));
    let told = futures_util::FutureExt::now_or_never(heard(follower)).unwrap();
    assert_eq!(told, (vec![word(&"x".repeat(1000))], true));
}
