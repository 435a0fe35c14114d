//! Budgets: what is refused, what is counted, and in which window.

use jiff::ToSpan;

use super::*;
use crate::config::Unit;

const DAILY: &str = "budget = [{ tokens = 1000, window = \"1d\", soft = 0.8 }]";
const PREPAID: &str = "budget = [{ tokens = 1000, window = \"none\" }]";

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

#[test]
fn a_call_that_may_cost_more_than_is_left_is_refused_and_changes_nothing() {
    let (house, now) = (House::new(), House::new().start);
    let key = house.key(DAILY);
    let hold = reserve(&key, tokens(700), now).unwrap();
    let refusal = reserve(&key, tokens(301), now).unwrap_err();
    assert_eq!(
        (refusal.dimension, refusal.code()),
        (Dimension::Budget(Unit::Tokens), "budget_exceeded")
    );
    assert_eq!((refusal.limit, refusal.used, refusal.reserved, refusal.asked), (1000, 0, 700, 301));
    assert_eq!(refusal.retry_after, None, "it waits for a call in flight");
    assert_eq!(standing(&key[0], now), (0, 700));
    assert_eq!(key[0].in_flight(), 1);
    hold.settle(50, 0, now);
    assert!(reserve(&key, tokens(950), now).is_ok());
}

#[test]
fn a_spent_budget_says_when_it_resets_and_then_does_without_anybody_resetting_it() {
    let house = House::new();
    let key =
        house.key("budget = [{ tokens = 1000, window = \"1d\", timezone = \"Europe/Berlin\" }]");
    reserve(&key, tokens(10), house.start).unwrap().settle(1000, 0, house.start);
    let refusal = reserve(&key, tokens(1), house.start).unwrap_err();
    // 10:00 in UTC is 11:00 in Berlin.
    assert_eq!(refusal.retry_after, Some(hours(13)));
    let told = refusal.to_string();
    assert!(told.contains("resets at 2026-11-22T00:00:00+01:00"), "{told}");
    let just_before = house.after(hours(13).saturating_sub(Duration::from_nanos(1)));
    assert!(reserve(&key, tokens(1), just_before).is_err());
    let midnight = house.after(hours(13));
    assert!(reserve(&key, tokens(1000), midnight).is_ok());
    assert_eq!(standing(&key[0], midnight), (0, 0));
}

#[test]
fn a_call_that_can_never_fit_is_not_told_to_wait() {
    let house = House::new();
    let refusal = reserve(&house.key(DAILY), tokens(1001), house.start).unwrap_err();
    assert_eq!(refusal.retry_after, None);
    let key = house.key(PREPAID);
    reserve(&key, tokens(1), house.start).unwrap().settle(1000, 0, house.start);
    let refusal = reserve(&key, tokens(1), house.start).unwrap_err();
    assert_eq!((refusal.retry_after, refusal.resets_at), (None, None));
}

#[test]
fn responses_that_cross_a_boundary_together_all_count_in_the_new_window() {
    let house = House::new();
    let key = house.key(DAILY);
    let holds: Vec<_> = (0..10).map(|_| reserve(&key, tokens(100), house.start).unwrap()).collect();
    let tomorrow = house.after(hours(15));
    assert_eq!(standing(&key[0], tomorrow), (0, 1000), "what is held is held over the boundary");
    assert!(reserve(&key, tokens(1), tomorrow).is_err());
    for hold in holds {
        hold.settle(40, 0, tomorrow);
    }
    assert_eq!(standing(&key[0], tomorrow), (400, 0));
}

#[test]
fn a_clock_that_is_put_back_gives_nothing_back() {
    let house = House::new();
    let key = house.key(DAILY);
    let tomorrow = house.after(hours(15));
    reserve(&key, tokens(500), tomorrow).unwrap().settle(500, 0, tomorrow);
    assert_eq!(standing(&key[0], house.start), (500, 0));
    reserve(&key, tokens(100), house.start).unwrap().settle(100, 0, house.start);
    assert_eq!(standing(&key[0], tomorrow), (600, 0));
}

#[test]
fn a_clock_that_was_wrong_by_more_than_a_window_freezes_no_budget() {
    let house = House::new();
    let key = house.key(DAILY);
    let (now, ahead) = (house.start, house.after(hours(400 * 24)));
    reserve(&key, tokens(900), ahead).unwrap().settle(900, 0, ahead);
    assert_eq!(standing(&key[0], now), (0, 0));
    // What was spent today before is asked of the ledger.
    let unseeded = key[0].unseeded();
    assert_eq!((unseeded[0].from, unseeded[0].since), (now.wall - 10.hours(), now.wall));
    assert!(key[0].seed(0, &[(now.wall - 1.hour(), 400), (ahead.wall, 900)], now));
    assert_eq!(standing(&key[0], now), (400, 0));
    assert_eq!(standing(&key[0], house.after(hours(14))), (0, 0));
}

#[test]
fn a_hold_grows_as_far_as_every_budget_allows() {
    let house = House::new();
    let (key, team) = (
        house.key(DAILY),
        house.account(Scope::Team, "t", "budget = [{ tokens = 500, window = \"none\" }]"),
    );
    let both = [Arc::clone(&key[0]), Arc::clone(&team)];
    let mut hold = reserve(&both, tokens(300), house.start).unwrap();
    hold.grow(200, 7, house.start).unwrap();
    assert_eq!((hold.reserved().tokens, hold.reserved().nanos), (500, 7));
    let refusal = hold.grow(1, 0, house.start).unwrap_err();
    assert_eq!((refusal.scope, &*refusal.name), (Scope::Team, "t"));
    assert_eq!(hold.reserved().tokens, 500);
    assert_eq!(
        (standing(&key[0], house.start), standing(&team, house.start)),
        ((0, 500), (0, 500))
    );
    drop(hold);
    assert_eq!((standing(&key[0], house.start), standing(&team, house.start)), ((0, 0), (0, 0)));
}

#[test]
fn all_levels_take_a_call_or_none_does() {
    let house = House::new();
    let key = house.account(
        Scope::Key,
        "k",
        "limits = { requests = \"5/m\" }\nbudget = [{ tokens = 1000, window = \"1d\" }]",
    );
    let org = house.account(Scope::Org, "o", "budget = [{ usd = 1, window = \"1mo\" }]");
    let all = [Arc::clone(&org), Arc::clone(&key)];
    let costly = Demand { tokens: 10, nanos: 1_000_000_001, priced: true };
    for _ in 0..20 {
        assert_eq!(reserve(&all, costly, house.start).unwrap_err().scope, Scope::Org);
    }
    assert_eq!(standing(&key, house.start), (0, 0));
    let fair = Demand { tokens: 10, nanos: 1000, priced: true };
    for _ in 0..5 {
        reserve(&all, fair, house.start).unwrap().settle(7, 900, house.start);
    }
    assert_eq!((standing(&key, house.start), standing(&org, house.start)), ((35, 0), (4500, 0)));
}

#[test]
fn an_account_that_is_named_twice_counts_once() {
    let house = House::new();
    let [key] = house.key(DAILY);
    let hold = reserve(&[Arc::clone(&key), Arc::clone(&key)], tokens(600), house.start).unwrap();
    assert_eq!(standing(&key, house.start), (0, 600));
    hold.settle(500, 0, house.start);
    assert_eq!(standing(&key, house.start), (500, 0));
}

#[test]
fn nobody_without_a_budget_is_refused_for_one() {
    let house = House::new();
    let huge = Demand { tokens: u64::MAX, nanos: u64::MAX, priced: false };
    let key = house.key("");
    let holds: Vec<_> = (0..3).map(|_| reserve(&key, huge, house.start).unwrap()).collect();
    drop(holds);
    assert!(reserve(&[], huge, house.start).is_ok());
}

#[test]
fn a_budget_in_money_refuses_what_has_no_price_and_one_in_tokens_does_not() {
    let house = House::new();
    let unknown = Demand { tokens: 10, nanos: 0, priced: false };
    assert!(reserve(&house.key(DAILY), unknown, house.start).is_ok());
    let key = house.key("budget = [{ usd = 0.5, window = \"1d\" }]");
    let refusal = reserve(&key, unknown, house.start).unwrap_err();
    assert_eq!((refusal.code(), refusal.dimension), ("unpriced_model", Dimension::Unpriced));
    assert_eq!(key[0].in_flight(), 0);
}

#[test]
fn free_models_stay_open_when_all_money_is_spent() {
    let house = House::new();
    let key = house.key("budget = [{ usd = 0.5, window = \"1d\" }]");
    reserve(&key, nanos(500_000_000), house.start).unwrap().settle(0, 600_000_000, house.start);
    let told = reserve(&key, nanos(1), house.start).unwrap_err().to_string();
    assert!(told.contains("a budget of 0.5 USD (window 1d): 0.6 USD used"), "{told}");
    assert!(reserve(&key, tokens(10), house.start).is_ok());
}

#[test]
fn a_rolling_budget_frees_what_was_spent_a_period_ago() {
    let house = House::new();
    let key = house.key("budget = [{ tokens = 1000, window = \"1h\", rolling = true }]");
    reserve(&key, tokens(600), house.start).unwrap().settle(600, 0, house.start);
    let later = house.after(SECOND * 1800);
    reserve(&key, tokens(300), later).unwrap().settle(300, 0, later);
    let wait = reserve(&key, tokens(200), later).unwrap_err().retry_after.unwrap();
    assert!((1800..=1804).contains(&wait.as_secs()), "{wait:?}");
    let freed = house.after(SECOND * 1800 + wait);
    assert!(reserve(&key, tokens(200), house.after(SECOND * 1799 + wait)).is_err());
    assert!(reserve(&key, tokens(700), freed).is_ok());
    assert_eq!(standing(&key[0], freed).0, 300);
}

#[test]
fn what_is_prepaid_lasts_until_it_is_topped_up() {
    let house = House::new();
    let key = house.key(PREPAID);
    reserve(&key, tokens(1000), house.start).unwrap().settle(1000, 0, house.start);
    let next_year = house.after(hours(9000));
    assert!(reserve(&key, tokens(1), next_year).is_err());
    assert!(key[0].top_up(0, 500, next_year));
    assert!(!key[0].top_up(1, 500, next_year));
    let status = &key[0].status(next_year)[0];
    assert_eq!((status.limit.value, status.left.value), (1500, 500));
    assert!(reserve(&key, tokens(500), house.after(hours(18_000))).is_ok());
}

#[test]
fn a_top_up_of_a_window_ends_with_it() {
    let house = House::new();
    let key = house.key(DAILY);
    key[0].top_up(0, 500, house.start);
    assert_eq!(key[0].status(house.start)[0].limit.value, 1500);
    let refusal = reserve(&key, tokens(1501), house.start).unwrap_err();
    assert_eq!(refusal.retry_after, None);
    assert_eq!(key[0].status(house.after(hours(24)))[0].limit.value, 1000);
}

#[test]
fn a_soft_threshold_is_told_of_once_in_each_window() {
    let house = House::new();
    let key = house.key(DAILY);
    let spend = |amount, now| reserve(&key, tokens(amount), now).unwrap().settle(amount, 0, now);
    assert_eq!(spend(799, house.start), []);
    let told = spend(1, house.start);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].used.value, told[0].soft_permille, &*told[0].name), (800, 800, "ci"));
    assert_eq!(spend(100, house.start), []);
    let tomorrow = house.after(hours(24));
    assert_eq!(spend(799, tomorrow), []);
    assert_eq!(spend(1, tomorrow).len(), 1);
}

#[test]
fn the_past_is_seeded_once_however_often_and_by_however_many() {
    let house = House::new();
    let key = house.key("budget = [{ tokens = 1000, window = \"1d\" }, { tokens = 5000, window = \"2d\", rolling = true }]");
    let start = house.start.wall;
    let midnight: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
    let unseeded = key[0].unseeded();
    assert_eq!((unseeded[0].from, unseeded[0].since), (midnight, start));
    assert_eq!((unseeded[1].budget, unseeded[1].since), (1, start));
    assert_eq!(unseeded[1].from, start - SignedDuration::from_hours(48));
    // What is settled meanwhile is not part of the past.
    reserve(&key, tokens(10), house.start).unwrap().settle(10, 0, house.start);
    let ago = |hours| start - SignedDuration::from_hours(hours);
    let past = [(ago(40), 1), (ago(12), 2), (ago(9), 300), (ago(1), 4), (start, 999)];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| key[0].seed(0, &past, house.start));
            scope.spawn(|| key[0].seed(1, &past, house.start));
        }
    });
    let used: Vec<u64> = key[0].status(house.start).iter().map(|one| one.used.value).collect();
    assert_eq!(used, [314, 317]);
    assert_eq!(key[0].unseeded(), []);
    assert!(!key[0].seed(0, &past, house.start));
}

#[test]
fn a_reload_keeps_what_is_used_and_held_under_whatever_limit() {
    let house = House::new();
    let key = house.key(DAILY);
    let hold = reserve(&key, tokens(100), house.start).unwrap();
    reserve(&key, tokens(300), house.start).unwrap().settle(300, 0, house.start);
    change(
        &house.accounts.account(Scope::Key, "ci"),
        "budget = [{ usd = 1, window = \"1d\" }, { tokens = 350, window = \"1d\" }]",
        house.start,
    );
    let status = key[0].status(house.start);
    assert_eq!(status[1].used.value, 300);
    assert_eq!((status[1].reserved.value, status[1].left.value), (100, 0));
    assert!(reserve(&key, tokens(1), house.start).is_err());
    hold.settle(50, 9, house.start);
    let used: Vec<u64> = key[0].status(house.start).iter().map(|one| one.used.value).collect();
    assert_eq!(used, [9, 350], "a call in flight settles in the budgets there are at its end");
}

#[test]
fn an_account_is_one_for_all_who_ask_and_forgotten_when_nobody_has_it() {
    let house = House::new();
    let key = house.key(DAILY);
    assert!(Arc::ptr_eq(&key[0], &house.accounts.account(Scope::Key, "ci")));
    assert!(!Arc::ptr_eq(&key[0], &house.accounts.account(Scope::User, "ci")));
    reserve(&key, tokens(100), house.start).unwrap().settle(100, 0, house.start);
    drop(key);
    assert_eq!(house.accounts.account(Scope::Key, "ci").status(house.start), []);
}

#[test]
fn a_status_reads_as_the_api_promises() {
    let house = House::new();
    let key = house.key(
        "budget = [{ tokens = 1_000_000, window = \"1d\", timezone = \"Europe/Berlin\" }, \
         { usd = 20.5, window = \"none\" }]",
    );
    let demand = Demand { tokens: 5920, nanos: 3_100_000, priced: true };
    let hold = reserve(&key, demand, house.start).unwrap();
    hold.settle(5120, 3_100_000, house.start);
    let _held = reserve(&key, tokens(800), house.start).unwrap();
    let shown = serde_json::to_value(key[0].status(house.start)).unwrap();
    assert_eq!(
        shown,
        serde_json::json!([
            { "scope": "key", "unit": "tokens", "limit": 1_000_000, "used": 5120, "reserved": 800,
              "left": 994_080, "window": "1d", "resets_at": "2026-11-22T00:00:00+01:00" },
            { "scope": "key", "unit": "usd", "limit": 20.5, "used": 0.0031, "reserved": 0.0,
              "left": 20.4969, "window": "none", "resets_at": null }
        ])
    );
    let least = left(&key, house.start);
    assert_eq!((least.tokens, least.nanos), (Some(994_080), Some(20_496_900_000)));
}
