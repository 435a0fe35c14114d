//! What is kept, for how long and for whom; and which question is like which.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use crate::cache::{Entry, Exact, Index, Kept, Known, Leave, Scope, is_storable, may_be_asked};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Dialect, Finish, FinishReason, Foreign, Opaque, Part, Tool,
};
use crate::config::{CacheMode, Share};

const HOUR: Duration = Duration::from_hours(1);

pub(super) fn scope(tenant: &str, route: &str) -> Scope {
    Scope { tenant: tenant.to_owned(), route: route.to_owned() }
}

pub(super) fn entry(scope: Scope) -> Arc<Entry> {
    Arc::new(Entry {
        kept: Kept::Body(String::new()),
        usage: None,
        cost: None,
        provider: "p".to_owned(),
        model: "m".to_owned(),
        dropped: Vec::new(),
        scope,
        at: 1_000_000,
        ttl: 3_600_000,
    })
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

#[test]
fn an_answer_is_given_until_it_is_too_old_for_it_or_for_its_reader() {
    let kept = Exact::new(1 << 20);
    kept.put([1; 32], entry(scope("a", "r")), 100);
    let get = |ttl, now| kept.get(&[1; 32], ttl, at(now)).is_some();
    assert!(get(HOUR, 1_000_000) && get(HOUR, 4_599_999));
    assert!(!get(Duration::from_mins(1), 1_060_000));
    assert!(get(HOUR, 1_060_000), "another reader's term changes nothing for this one");
    assert!(!get(HOUR * 2, 4_600_000));
    assert!(kept.get(&[2; 32], HOUR, at(1_000_000)).is_none());
}

#[test]
fn answers_take_no_more_memory_than_they_may() {
    let kept = Exact::new(100_000);
    for number in 0..1000_u32 {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        kept.put(digest, entry(scope("a", "r")), 1000);
        kept.stock();
    }
    let stock = kept.stock();
    assert!(stock.bytes <= 100_000 && stock.entries > 10, "{stock:?}");
}

#[test]
fn a_scope_is_forgotten_and_no_other() {
    let kept = Exact::new(1 << 20);
    let scopes = [("a", "r"), ("a", "s"), ("b", "r")];
    for (number, (tenant, route)) in (0..).zip(scopes) {
        kept.put([number; 32], entry(scope(tenant, route)), 10);
    }
    assert_eq!(kept.purge(&scope("a", "s")), [[1; 32]]);
    assert_eq!(kept.purge(&scope("", "r")).len(), 2);
    assert_eq!(kept.purge(&scope("", "")).len(), 0);
}

#[test]
fn the_stricter_one_decides_what_the_cache_may_do() {
    let modes = [
        CacheMode::Off,
        CacheMode::On,
        CacheMode::ReadOnly,
        CacheMode::WriteOnly,
        CacheMode::Refresh,
    ];
    for route in modes {
        for call in modes {
            let (own, asked) = (Leave::of(route), Leave::of(call));
            let both = own.and(Some(call));
            assert_eq!(both.read, own.read && asked.read);
            assert_eq!(both.write, own.write && asked.write);
            assert!(both.write || !both.replace);
        }
        assert_eq!(Leave::of(route).and(None), Leave::of(route));
    }
}

#[test]
fn only_what_is_certain_and_made_by_the_model_alone_is_asked_for_once() {
    let mut request = ChatRequest::default();
    assert!(!may_be_asked(&request, false) && may_be_asked(&request, true));
    request.sampling.temperature = Some(0.0);
    assert!(may_be_asked(&request, false));
    let hosted = Foreign { dialect: Dialect::Responses, value: "web_search".into() };
    request.tools.push(Tool::Hosted(hosted));
    assert!(!may_be_asked(&request, true));
}

#[test]
fn a_providers_state_is_kept_for_the_key_only() {
    let mut part = Part::text("so");
    part.opaque = Some(Opaque { dialect: Dialect::Messages, data: "sig".into() });
    let mut response = ChatResponse {
        choices: vec![Choice { parts: vec![part], ..Choice::default() }],
        ..ChatResponse::default()
    };
    assert!(is_storable(&response, false, Share::Key));
    assert!(!is_storable(&response, false, Share::Team));
    assert!(!is_storable(&response, false, Share::All));
    let reason = FinishReason::Length;
    response.choices[0].finish = Finish { reason, ..Finish::default() };
    assert!(!is_storable(&response, false, Share::Key));
    assert!(!is_storable(&ChatResponse::default(), true, Share::Key));
}

#[test]
fn the_nearest_question_is_found_within_its_scope_only() {
    let index = Index::new(1 << 20);
    let (here, there) = ([1; 32], [2; 32]);
    index.add(here, &[1.0, 0.0, 0.0], known(10, 8));
    index.add(here, &[0.0, 2.0, 0.0], known(11, 8));
    index.add(there, &[0.0, 0.0, 1.0], known(12, 8));
    let near = index.nearest(&here, &[0.1, 5.0, 0.0], 5).unwrap();
    assert_eq!(near.digest, [11; 32]);
    assert!(near.similarity > 0.99 && near.similarity < 1.0, "{near:?}");
    assert!(index.nearest(&there, &[1.0, 0.0, 0.0], 5).unwrap().similarity.abs() < 1e-6);
    assert!(index.nearest(&[3; 32], &[1.0, 0.0, 0.0], 5).is_none());
    assert!(index.nearest(&here, &[1.0, 0.0], 5).is_none(), "of another model");
    assert!(index.nearest(&here, &[0.0, 0.0, 0.0], 5).is_none());
    assert_eq!(index.nearest(&here, &[0.1, 5.0, 0.0], 10), None, "too old");
    index.forget(|digest| *digest == [11; 32]);
    assert_eq!(index.nearest(&here, &[0.1, 5.0, 0.0], 5).unwrap().digest, [10; 32]);
    index.expire(&here, &[10; 32]);
    assert_eq!(index.nearest(&here, &[0.1, 5.0, 0.0], 5), None);
}

#[test]
fn vectors_take_no_more_than_they_may_and_the_scope_in_use_is_the_last_to_go() {
    let each = 8 * 4 + 40;
    let index = Index::new(10 * each);
    let unlike =
        |number: u8| -> [f32; 8] { [f32::from(number), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0] };
    for scope in 0..5_u8 {
        for number in 0..4 {
            index.add([scope; 32], &unlike(number), known(10 * scope + number, 100));
            assert!(index.count() <= 10);
        }
    }
    assert_eq!(index.nearest(&[0; 32], &unlike(0), 5), None);
    assert_eq!(index.nearest(&[4; 32], &unlike(0), 5).unwrap().digest, [40; 32]);
    for number in 0..40 {
        index.add([9; 32], &unlike(number), known(100 + number, 100));
    }
    assert_eq!(index.count(), 10, "one scope alone is bounded, too");
    assert_eq!(index.nearest(&[9; 32], &unlike(39), 5).unwrap().digest, [139; 32]);
}

/// A question that is good until 10.
fn known(number: u8, most: usize) -> Known {
    Known { digest: [number; 32], until: 10, most }
}

#[test]
fn a_full_scope_forgets_its_oldest_questions() {
    let index = Index::new(1 << 20);
    for number in 0..10_u8 {
        let mut vector = [0.0; 10];
        vector[usize::from(number)] = 1.0;
        index.add([0; 32], &vector, known(number, 4));
    }
    let mut asked = [0.0; 10];
    asked[3] = 1.0;
    assert!(index.nearest(&[0; 32], &asked, 5).unwrap().similarity < 0.5);
    (asked[3], asked[7]) = (0.0, 1.0);
    assert_eq!(index.nearest(&[0; 32], &asked, 5).unwrap().digest, [7; 32]);
}

proptest! {
    #[test]
    fn the_nearest_of_all_is_the_one_with_the_largest_cosine(
        vectors in proptest::collection::vec(proptest::collection::vec(-1.0_f32..1.0, 37), 1..30),
        asked in proptest::collection::vec(-1.0_f32..1.0, 37),
    ) {
        let index = Index::new(1 << 20);
        for (number, vector) in (0..).zip(&vectors) {
            index.add([0; 32], vector, known(number, 100));
        }
        let dot = |left: &[f32], right: &[f32]| -> f64 {
            left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let cosine = |other: &Vec<f32>| {
            dot(other, &asked) / (dot(other, other) * dot(&asked, &asked)).sqrt()
        };
        let best = vectors.iter().map(cosine).fold(f64::MIN, f64::max);
        let near = index.nearest(&[0; 32], &asked, 5).unwrap();
        prop_assert!((f64::from(near.similarity) - best).abs() < 1e-4);
    }
}
