//! Words are known only where every byte of them is, and all around them is as it was.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::kept::{entry, scope};
use super::keys::{POLICY, bodies, mutations};
use crate::cache::key::Setting;
use crate::cache::{Cache, Scope, Template, Wording};
use crate::canon::Dialect;

const DIGEST: [u8; 32] = [3; 32];

fn setting(dialect: Dialect) -> Setting<'static> {
    let body = (dialect, &b""[..]);
    Setting { tenant: "key:a", policy: &POLICY, targets: &[1, 2], headers: &[("beta", b"x")], body }
}

fn wording(dialect: Dialect, body: &[u8]) -> Wording {
    Wording::new(&setting(dialect), &[b"chat", b"r"], Bytes::copy_from_slice(body))
}

fn answer(text: &'static str) -> Option<Template> {
    Template::find(|id, _| Some(format!("{text}{id}").into_bytes()))
}

/// A cache that knows the words of this body, and is given them anew where they are sought.
fn knowing(dialect: Dialect, body: &[u8]) -> Cache {
    let cache = Cache::new(1 << 20);
    let kept = entry(scope("all", "r"));
    cache.exact.put(DIGEST, Arc::clone(&kept), 10);
    cache.literals.note(wording(dialect, body), (DIGEST, &kept), answer("a"));
    cache
}

fn knows(cache: &Cache, wording: &Wording) -> bool {
    cache.recall(wording, Duration::MAX, SystemTime::UNIX_EPOCH).is_some()
}

#[test]
fn whatever_changes_in_one_place_is_not_known() {
    for (surface, body) in bodies() {
        let (dialect, text) = (surface.dialect().unwrap(), body.to_string());
        let cache = knowing(dialect, text.as_bytes());
        assert!(knows(&cache, &wording(dialect, text.as_bytes())));
        for (how, changed) in mutations(&body) {
            let changed = changed.to_string();
            assert_eq!(
                knows(&cache, &wording(dialect, changed.as_bytes())),
                changed == text,
                "{how}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_other_bytes_are_known(
        body in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let cache = knowing(Dialect::Chat, &body);
        let mut other = body.clone();
        let at = at.index(other.len());
        other[at] = byte;
        prop_assert_eq!(knows(&cache, &wording(Dialect::Chat, &other)), other == body);
        let shorter = &body[..length.index(body.len())];
        prop_assert!(!knows(&cache, &wording(Dialect::Chat, shorter)));
    }
}

#[test]
fn the_same_words_of_another_tenant_policy_target_header_or_door_are_not_known() {
    let cache = knowing(Dialect::Chat, b"{}");
    let base = setting(Dialect::Chat);
    let others = [
        Setting { tenant: "key:b", ..base },
        Setting { tenant: "key:", ..base },
        Setting { policy: &[8; 32], ..base },
        Setting { targets: &[1], ..base },
        Setting { targets: &[2, 1], ..base },
        Setting { headers: &[], ..base },
        Setting { headers: &[("beta", b"y")], ..base },
        Setting { headers: &[("bet", b"ax")], ..base },
        setting(Dialect::Messages),
    ];
    let more: [&[u8]; 2] = [b"chat", b"r"];
    let of = |setting: &Setting<'_>, more: &[&[u8]]| {
        knows(&cache, &Wording::new(setting, more, Bytes::from_static(b"{}")))
    };
    assert!(of(&base, &more));
    assert!(others.iter().all(|other| !of(other, &more)));
    let beside: [&[&[u8]]; 4] = [&[b"chat", b"s"], &[b"chatr"], &[b"cha", b"tr"], &[]];
    assert!(beside.iter().all(|more| !of(&base, more)));
}

#[test]
fn words_lead_to_the_answer_that_they_were_given_and_to_no_later_one() {
    let cache = knowing(Dialect::Chat, b"{}");
    let asked = wording(Dialect::Chat, b"{}");
    let later = entry(scope("all", "r"));
    cache.exact.put(DIGEST, Arc::clone(&later), 10);
    assert!(!knows(&cache, &asked), "that answer was not written for them yet");
    cache.literals.note(wording(Dialect::Chat, b"{}"), (DIGEST, &later), answer("b"));
    let (literal, entry) = cache.recall(&asked, Duration::MAX, SystemTime::UNIX_EPOCH).unwrap();
    assert!(Arc::ptr_eq(&entry, &later));
    let id = "0123456789abcdef0123456789abcdef";
    let text = literal.answer.as_ref().unwrap().fill(id, 1_700_000_000).unwrap();
    assert_eq!(text, format!("b{id}"));
}

#[test]
fn what_is_purged_leaves_no_words_behind() {
    let cache = knowing(Dialect::Chat, b"{}");
    assert!(cache.literals.bytes() > 0);
    assert_eq!(cache.purge(&scope("other", "")), 0);
    assert!(cache.literals.bytes() > 0);
    assert_eq!(cache.purge(&Scope::default()), 1);
    assert_eq!(cache.literals.bytes(), 0);
    assert!(!knows(&cache, &wording(Dialect::Chat, b"{}")));
}
