//! Limits by time and by number: never more than that, and an exact word on when there is room.

use proptest::prelude::*;

use super::*;

fn try_one(key: &[Arc<Account>], now: Moment) -> Result<(), Box<Refusal>> {
    reserve(key, tokens(10), now).map(|hold| drop(hold.settle(10, 0, now)))
}

#[test]
fn the_wait_that_is_told_is_exact() {
    let house = House::new();
    let key = house.key("limits = { requests = \"3/m\" }");
    for second in 0..3 {
        try_one(&key, house.after(SECOND * second)).unwrap();
    }
    let now = house.after(SECOND * 10);
    let refusal = try_one(&key, now).unwrap_err();
    assert_eq!((refusal.dimension, refusal.code()), (Dimension::Requests, "rate_limited"));
    assert_eq!((refusal.limit, refusal.used, refusal.window.as_str()), (3, 3, "m"));
    let wait = refusal.retry_after.unwrap();
    assert!((50_000..=50_060).contains(&wait.as_millis()), "{wait:?}");
    let then = SECOND * 10 + wait;
    assert!(try_one(&key, house.after(then.saturating_sub(Duration::from_nanos(1)))).is_err());
    try_one(&key, house.after(then)).unwrap();
    assert!(try_one(&key, house.after(then)).is_err(), "only the first has left");
}

#[test]
fn refusals_cost_nothing_however_many() {
    let house = House::new();
    let key = house.key("limits = { requests = \"2/s\", tokens = \"1k/m\" }");
    for _ in 0..2 {
        try_one(&key, house.start).unwrap();
    }
    for _ in 0..1000 {
        assert!(try_one(&key, house.start).is_err());
    }
    try_one(&key, house.after(SECOND * 2)).unwrap();
    let [_, tokens] = rates(&key, house.after(SECOND * 2));
    assert_eq!(tokens.unwrap().remaining, 970);
}

#[test]
fn several_limits_hold_at_once_and_the_longest_wait_is_told() {
    let house = House::new();
    let key = house.key("limits = { requests = [\"2/s\", \"3/h\"] }");
    for second in [0, 0, 2] {
        try_one(&key, house.after(SECOND * second)).unwrap();
    }
    let refusal = try_one(&key, house.after(SECOND * 4)).unwrap_err();
    assert_eq!(refusal.window, "h");
    assert!(refusal.retry_after.unwrap() >= SECOND * 3596);
}

#[test]
fn tokens_count_as_reserved_at_once_and_as_used_at_the_end() {
    let house = House::new();
    let key = house.key("limits = { tokens = \"1k/m\" }");
    let hold = reserve(&key, tokens(900), house.start).unwrap();
    let refusal = reserve(&key, tokens(200), house.start).unwrap_err();
    assert_eq!((refusal.dimension, refusal.used), (Dimension::Tokens, 900));
    hold.settle(300, 0, house.after(SECOND));
    let second = reserve(&key, tokens(700), house.after(SECOND)).unwrap();
    assert!(reserve(&key, tokens(1), house.after(SECOND)).is_err());
    second.settle(2000, 0, house.after(SECOND * 3));
    let refusal = reserve(&key, tokens(1), house.after(SECOND * 4)).unwrap_err();
    assert_eq!(refusal.used, 2300, "the truth counts, even where it exceeds what was held");
    assert!(reserve(&key, tokens(1000), house.after(SECOND * 62)).is_ok());
}

#[test]
fn an_answer_that_outgrows_its_limit_by_time_is_counted_and_not_broken_off() {
    let house = House::new();
    let key = house.key("limits = { tokens = \"1k/m\" }");
    let mut hold = reserve(&key, tokens(900), house.start).unwrap();
    hold.grow(600, 0, house.start).unwrap();
    assert_eq!(reserve(&key, tokens(1), house.start).unwrap_err().used, 1500);
    drop(hold);
    assert!(reserve(&key, tokens(1000), house.start).is_ok());
}

#[test]
fn a_call_larger_than_its_limit_is_told_so_and_not_to_wait() {
    let house = House::new();
    let refusal = reserve(&house.key("limits = { tokens = \"1k/m\" }"), tokens(1001), house.start)
        .unwrap_err();
    assert_eq!(refusal.retry_after, None);
    let told = refusal.to_string();
    assert_eq!(
        told,
        "The key `ci` has a limit of 1000 tokens/m, and this call alone may take 1001."
    );
}

#[test]
fn a_place_is_free_again_however_a_call_ends() {
    let house = House::new();
    let key = house.key("limits = { concurrency = 2 }");
    let hold = || reserve(&key, tokens(1), house.start);
    let (first, second) = (hold().unwrap(), hold().unwrap());
    let refusal = hold().unwrap_err();
    assert_eq!((refusal.dimension, refusal.retry_after), (Dimension::Concurrency, None));
    first.settle(1, 0, house.start);
    let third = hold().unwrap();
    drop(second);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = hold().unwrap();
        panic!("in a worker");
    }));
    assert!(panicked.is_err());
    drop(third);
    assert_eq!(key[0].in_flight(), 0);
}

#[test]
fn what_was_never_sent_gives_its_request_back() {
    let house = House::new();
    let key = house.key("limits = { requests = \"1/h\" }");
    drop(reserve(&key, tokens(1), house.start).unwrap());
    try_one(&key, house.start).unwrap();
    assert!(try_one(&key, house.start).is_err());
}

#[test]
fn a_reload_keeps_the_count_of_limits_that_stay() {
    let house = House::new();
    let key = house.key("limits = { requests = \"2/m\", tokens = \"1k/m\" }");
    let hold = reserve(&key, tokens(500), house.start).unwrap();
    try_one(&key, house.start).unwrap();
    let later = house.after(SECOND);
    change(&key[0], "limits = { requests = \"3/m\", tokens = [\"1k/m\", \"2k/h\"] }", later);
    try_one(&key, later).unwrap();
    assert!(try_one(&key, later).is_err());
    hold.settle(1, 0, later);
    let [_, tokens] = rates(&key, later);
    assert_eq!(tokens.unwrap().remaining, 979);
}

#[test]
fn headers_name_the_tightest_limit_of_all_accounts() {
    let house = House::new();
    let key = house.account(Scope::Key, "k", "limits = { requests = [\"60/m\", \"1000/h\"] }");
    let team =
        house.account(Scope::Team, "t", "limits = { requests = \"40/m\", tokens = \"100k/m\" }");
    let both = [key, team];
    let [requests, tokens] = rates(&both[..1], house.start);
    assert_eq!((requests.unwrap().reset, tokens), (Duration::ZERO, None));
    reserve(&both, self::tokens(30_000), house.start).unwrap().settle(20_000, 0, house.start);
    let told = rates(&both, house.after(SECOND * 20));
    let told = told.map(|rate| rate.map(|it| (it.limit, it.remaining, it.spelled_reset())));
    let reset = || "40.06s".to_owned();
    assert_eq!(told, [Some((40, 39, reset())), Some((100_000, 80_000, reset()))]);
    assert_eq!(rates(&house.key(""), house.start), [None, None]);
}

proptest! {
    #[test]
    fn no_second_ever_sees_more_than_its_limit_and_every_wait_is_exact(
        gaps in prop::collection::vec(0..400_000_000u64, 1..200),
    ) {
        const NANOS: u64 = 1_000_000_000;
        let house = House::new();
        let key = house.key("limits = { requests = \"5/s\" }");
        let (mut at, mut admitted) = (0, Vec::new());
        for gap in gaps {
            at += gap;
            if let Err(refusal) = try_one(&key, house.after(Duration::from_nanos(at))) {
                at += u64::try_from(refusal.retry_after.unwrap().as_nanos()).unwrap();
                prop_assert!(try_one(&key, house.after(Duration::from_nanos(at - 1))).is_err());
                prop_assert!(try_one(&key, house.after(Duration::from_nanos(at))).is_ok());
            }
            admitted.push(at);
            let recent = admitted.iter().filter(|&&other| other + NANOS > at).count();
            prop_assert!(recent <= 5);
        }
    }
}
