//! What is said of limits, budgets, and who belongs to whom.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::super::{Budget, Every, Limits, Pace, Unit, Weights, Window};
use super::{complaints_beside_sound, parse};
use crate::canon::Usage;

fn terms(text: &str) -> (Limits, Vec<Budget>) {
    let config = parse(&format!("[orgs.any]\n{text}")).unwrap();
    let org = config.orgs["any"].clone();
    (org.limits, org.budget)
}

#[test]
fn limits_arrive_in_every_spelling() {
    let (limits, _) = terms(
        "limits = { requests = [\"60/m\", \"1_000/h\"], tokens = \"100k/d\", concurrency = 8 }",
    );
    let pace = |amount, seconds| Pace { amount, seconds };
    assert_eq!(limits.requests, [pace(60, 60), pace(1000, 3600)]);
    assert_eq!(limits.tokens, [pace(100_000, 86_400)]);
    assert_eq!(limits.concurrency, Some(8));
    assert!(!limits.is_empty());
    let (limits, budget) = terms("limits = { tokens = \"2M/s\" }");
    assert_eq!((limits.tokens[0].amount, budget.len()), (2_000_000, 0));
}

#[test]
fn budgets_arrive_exactly() {
    let (_, budgets) = terms(
        "budget = [{ tokens = 1_000_000, window = \"1d\", timezone = \"Europe/Berlin\", soft = 0.8 }, \
         { usd = 20.1, window = \"1mo\" }, { usd = 5, window = \"30d\", rolling = true }, \
         { tokens = 9, window = \"none\" }, { tokens = 9, window = \"90m\" }, { tokens = 9, window = \"2w\" }]",
    );
    let windows: Vec<_> = budgets.iter().map(|budget| budget.window.clone()).collect();
    assert_eq!(
        windows,
        [
            Window::Calendar(Every::Days(1), TimeZone::get("Europe/Berlin").unwrap()),
            Window::Calendar(Every::Months(1), TimeZone::UTC),
            Window::Rolling(Duration::from_hours(720)),
            Window::Never,
            Window::Calendar(Every::Seconds(5400), TimeZone::UTC),
            Window::Calendar(Every::Weeks(2), TimeZone::UTC),
        ]
    );
    assert_eq!((budgets[0].unit, budgets[0].limit), (Unit::Tokens, 1_000_000));
    assert_eq!((budgets[0].soft_permille, budgets[0].label.as_str()), (Some(800), "1d"));
    assert_eq!((budgets[1].unit, budgets[1].limit), (Unit::Usd, 20_100_000_000));
}

#[test]
fn every_mistake_in_limits_and_budgets_is_told_at_once() {
    let text = r#"
[teams.a]
limits = { requests = "60", tokens = ["5/m", "6/m", "0/s", 7], concurrency = 0, request = "1/s" }
[teams.b]
budget = [
  { tokens = 1 },
  { tokens = 1, usd = 1, window = "1d" },
  { usd = 0.0000000001, window = "1y" },
  { usd = "1", window = "0d", soft = 2 },
  { tokens = 1, window = "1d", timezone = "Europe/Berln" },
  { tokens = 1, window = "1h", timezone = "Europe/Berlin" },
  { tokens = 1, window = "1mo", rolling = true },
  { tokens = 1, window = "none", rolling = true },
  { tokens = 1, window = "1w" },
  { tokens = 2, window = "1w" },
  { tokens = 0, window = "2w" },
]
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r#"8: teams.a.limits.request: "request" is not known; did you mean "requests"?
8: teams.a.limits.requests: "60" is not a limit; write "60/m" or "100k/h"; the units are s, m, h and d
8: teams.a.limits.tokens[1]: there are two limits for the same span
8: teams.a.limits.tokens[2]: must be at least 1
8: teams.a.limits.tokens[3]: must be "60/m" or "100k/h"; the units are s, m, h and d, not an integer
8: teams.a.limits.concurrency: must be a whole number from 1 to 4294967295, not 0
11: teams.b.budget[0]: `window` is missing
12: teams.b.budget[1]: write either `tokens` or `usd`
13: teams.b.budget[2].usd: 0.0000000001 has more than nine digits behind the point
13: teams.b.budget[2].window: "1y" is not a window; write "1h", "1d", "30d", "1w", "1mo" or "none"
14: teams.b.budget[3].usd: must be an amount of USD, not text
14: teams.b.budget[3].window: must be 1d to 366d
15: teams.b.budget[4].timezone: no time zone is called "Europe/Berln"; did you mean "Europe/Berlin"?
16: teams.b.budget[5].timezone: belongs to windows of days, weeks and months that do not roll
17: teams.b.budget[6].rolling: months differ in length; write "30d"
18: teams.b.budget[7].rolling: a budget without a window cannot roll
20: teams.b.budget[9]: there are two budgets of the same unit and window
21: teams.b.budget[10].tokens: must be a whole number from 1 to 1000000000000000, not 0
"#
    );
}

#[test]
fn a_key_says_whose_it_is_until_when_and_from_where() {
    let text = r#"
[providers.groq]
kind = "groq"
limits = { requests = "30/m" }
[routes.fast]
targets = ["groq/llama"]
limits = { concurrency = 3 }
[models."groq/llama"]
limits = { tokens = "6k/m" }
[orgs.acme]
[teams.search]
org = "acme"
[users.ann]
team = "search"
[keys.a]
secret = "a"
user = "ann"
team = "search"
models = ["groq/*"]
tags = { env = "prod" }
expires = 2027-01-01
ips = ["10.0.0.0/8", "::1"]
[keys.b]
secret = "b"
expires = "2027-01-01T09:00:00+01:00"
"#;
    let config = parse(text).unwrap();
    let key = &config.keys["a"];
    assert_eq!((key.user.as_deref(), key.team.as_deref()), (Some("ann"), Some("search")));
    assert_eq!(key.expires, Some("2027-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(config.keys["b"].expires, Some("2027-01-01T08:00:00Z".parse().unwrap()));
    let ips = key.ips.as_ref().unwrap();
    let holds =
        |ip: &str| ips.iter().any(|net| net.contains(&ip.parse::<std::net::IpAddr>().unwrap()));
    assert!(holds("10.1.2.3") && holds("::1") && !holds("11.0.0.1"));
    assert_eq!(key.tags["env"], "prod");
    assert_eq!(config.teams["search"].org.as_deref(), Some("acme"));
    assert_eq!(config.providers["groq"].limits.requests[0].amount, 30);
    assert_eq!(config.routes["fast"].limits.concurrency, Some(3));
    assert_eq!(config.models["groq/llama"].limits.tokens[0].amount, 6000);
}

#[test]
fn members_of_what_does_not_exist_are_told_the_nearest_name() {
    let text = r#"
[orgs.acme]
[teams.search]
org = "acne"
[users.ann]
team = "serch"
[keys.a]
secret = "a"
user = "anne"
team = "sales"
models = ["gorq/*", "fast"]
expires = "tomorrow"
ips = ["10.0.0.0/33"]
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r#"9: teams.search.org: no org is called "acne"; did you mean "acme"?
11: users.ann.team: no team is called "serch"; did you mean "search"?
14: keys.a.user: no user is called "anne"; did you mean "ann"?
15: keys.a.team: no team is called "sales"; known: search
16: keys.a.models[0]: no provider is called "gorq"; did you mean "groq"?
16: keys.a.models[1]: "fast" is not a model; write "provider/model"
17: keys.a.expires: "tomorrow" is not a point in time; write 2027-01-01 or 2027-01-01T09:00:00+01:00
18: keys.a.ips[0]: "10.0.0.0/33" is neither an address nor a network; write "10.0.0.0/8"
"#
    );
}

#[test]
fn tokens_weigh_one_unless_something_else_is_written() {
    let usage = Usage {
        input: 100,
        cache_read: 1001,
        cache_write: 10,
        cache_write_long: 5,
        output: 50,
        reasoning: 40,
        ..Usage::default()
    };
    assert_eq!(Weights::default().count(&usage), usage.total());
    let config = parse("[token_weights]\ncache_read = 0.1\ncache_write = 0").unwrap();
    assert_eq!(config.token_weights.count(&usage), 100 + 101 + 50);
}
