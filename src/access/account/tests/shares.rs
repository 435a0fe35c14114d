//! Replicas that count together never exceed a limit together, whatever order things come in. The
//! server between them is a few lines of arithmetic here; the real one is asked the same in
//! `tests/replicas/mod.rs`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::shared::{Claim, LEASE, Told, Used};

const TERMS: &str = "limits = { requests = \"40/m\", tokens = \"2000/m\", concurrency = 9 }\n\
                     budget = [{ tokens = 1000, window = \"1m\" }, { tokens = 1500, window = \
                     \"2m\", rolling = true }, { usd = 0.000_002, window = \"none\" }]";
const REPLICAS: u32 = 3;

/// What a replica has said of a limit.
struct Field {
    window: i64,
    until: Duration,
    held: u64,
    slack: u64,
    used: u64,
    rolling: Vec<(Duration, u64)>,
}

#[derive(Default)]
struct Server {
    fields: BTreeMap<(String, usize), Field>,
    wanted: Vec<String>,
}

impl Server {
    fn claim(&mut self, node: usize, claim: &Claim, now: Duration) -> Told {
        let alive = |(at, _): &(Duration, u64)| *at > now;
        let (mut used, mut held, mut slack, mut ahead) = (0, 0, 0, false);
        let mut rolling = Vec::new();
        let others = self.fields.iter().filter(|((key, by), _)| *key == claim.key && *by != node);
        for (_, field) in others {
            if field.until > now {
                held += field.held;
                slack += field.slack;
            }
            used += if field.window == claim.window { field.used } else { 0 };
            ahead |= field.window > claim.window;
            let parts = field.rolling.iter().copied().filter(alive);
            rolling.extend(parts.map(|(at, amount)| (at.saturating_sub(now), amount)));
        }
        used += rolling.iter().map(|(_, amount)| amount).sum::<u64>();
        let mine = claim.used.sum() + claim.held + claim.slack;
        let free = claim.limit.saturating_sub(mine + used + held + slack);
        let may = claim.ask > 0 && !ahead && free >= claim.need;
        let slice = free.saturating_sub(claim.ask) / (8 * u64::from(REPLICAS));
        let grant = if may { free.min(claim.ask + slice) } else { 0 };
        if claim.ask > grant && slack > 0 {
            self.wanted.push(claim.key.clone());
        }
        let (own, parts) = match &claim.used {
            Used::In(amount) => (*amount, Vec::new()),
            Used::Rolling(parts) => {
                (0, parts.iter().map(|(left, amount)| (now + *left, *amount)).collect())
            }
        };
        let field = Field {
            window: claim.window,
            until: now + LEASE,
            held: claim.held,
            slack: claim.slack + grant,
            used: own,
            rolling: parts,
        };
        self.fields.insert((claim.key.clone(), node), field);
        let used = match &claim.used {
            Used::In(_) => Used::In(used),
            Used::Rolling(_) => Used::Rolling(rolling),
        };
        Told { grant, free: free - grant, used, held, slack, closed: ahead }
    }
}

/// Replicas with one key, and the server between them.
struct Town {
    houses: Vec<House>,
    keys: Vec<Arc<Account>>,
    server: Server,
    time: Duration,
}

impl Town {
    fn new(terms: &str) -> Self {
        let start = House::new().start;
        let house = |_| {
            let house = House { accounts: Accounts::new(start.steady), start };
            house.accounts.share_among(REPLICAS);
            house
        };
        let houses: Vec<House> = (0..REPLICAS).map(house).collect();
        let keys = houses.iter().map(|house| house.account(Scope::Key, "ci", terms)).collect();
        Self { houses, keys, server: Server::default(), time: SECOND }
    }

    fn now(&self) -> Moment {
        self.houses[0].after(self.time)
    }

    fn say(&mut self, node: usize, said: &[Said], is_lost: bool) {
        for said in said {
            let told = self.server.claim(node, &said.claim, self.time);
            if is_lost { said.mark_lost() } else { said.hear(&told) }
        }
    }

    fn tick(&mut self, node: usize) {
        let why = if self.server.wanted.is_empty() { Why::Due } else { Why::Wanted };
        let said = self.keys[node].tell(why, self.now());
        self.say(node, &said, false);
    }

    fn call(&mut self, node: usize, demand: Demand, is_lost: bool) -> Result<Hold, Denial> {
        let key = [Arc::clone(&self.keys[node])];
        let first = attempt(&key, demand, self.now(), Inquiry::default());
        let Err(Denial { is_final: false, .. }) = first else { return first };
        let asked_at = Some(self.now().steady);
        let mut wish = Wish::default();
        wish.add(1, demand);
        let said = key[0].ask(wish, self.now());
        self.say(node, &said, is_lost);
        attempt(&key, demand, self.now(), Inquiry { asked_at, is_last: true, away: false })
    }

    /// What all of them use and hold of each limit, and the limit.
    fn standing(&self) -> Vec<(u64, u64)> {
        let mut sums = [0; 6];
        for key in &self.keys {
            let mut state = key.lock();
            let now = self.now();
            state.advance((now.wall, key.nanos(now)));
            let own = |place: usize| {
                state.purses[place].own() + state.reserved(state.purses[place].budget.unit)
            };
            let (requests, tokens) = (&state.requests[0].counted, &state.token_rates[0].counted);
            let all = [requests.sum(), tokens.sum(), state.in_flight, own(0), own(1), own(2)];
            sums.iter_mut().zip(all).for_each(|(sum, one)| *sum += one);
        }
        sums.into_iter().zip([40, 2000, 9, 1000, 1500, 2000]).collect()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Call {
        node: usize,
        tokens: u64,
        nanos: u64,
        is_lost: bool,
    },
    /// Of what it holds so many thousandths are used.
    End {
        call: usize,
        permille: u64,
    },
    Drop {
        call: usize,
    },
    Pass {
        millis: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let node = 0..REPLICAS as usize;
    prop_oneof![
        6 => (node, 1..400u64, 1..300u64, prop::bool::weighted(0.1)).prop_map(
            |(node, tokens, nanos, is_lost)| Act::Call { node, tokens, nanos, is_lost }
        ),
        3 => (0..100usize, 0..=1000u64).prop_map(|(call, permille)| Act::End { call, permille }),
        1 => (0..100usize).prop_map(|call| Act::Drop { call }),
        4 => (1..3000u64).prop_map(|millis| Act::Pass { millis }),
    ]
}

proptest! {
    #[test]
    fn together_they_never_use_and_hold_more_than_a_limit(
        acts in prop::collection::vec(act(), 1..150),
    ) {
        let mut town = Town::new(TERMS);
        let mut holds: Vec<Hold> = Vec::new();
        for act in acts {
            match act {
                Act::Call { node, tokens, nanos, is_lost } => {
                    let demand = Demand { tokens, nanos, priced: true };
                    holds.extend(town.call(node, demand, is_lost));
                }
                Act::End { call, permille } if !holds.is_empty() => {
                    let hold = holds.swap_remove(call % holds.len());
                    let part = |amount: u64| amount * permille / 1000;
                    let held = hold.reserved();
                    hold.settle(part(held.tokens), part(held.nanos), town.now());
                }
                Act::Drop { call } if !holds.is_empty() => {
                    drop(holds.swap_remove(call % holds.len()));
                }
                Act::End { .. } | Act::Drop { .. } => {}
                Act::Pass { millis } => {
                    town.time += Duration::from_millis(millis);
                    (0..REPLICAS as usize).for_each(|node| town.tick(node));
                    town.server.wanted.clear();
                }
            }
            for (sum, limit) in town.standing() {
                prop_assert!(sum <= limit, "{:?}", town.standing());
            }
        }
    }
}

const ROOM_FOR_TEN: &str = "budget = [{ tokens = 1000, window = \"1m\" }]";

#[test]
fn what_others_keep_without_using_it_is_returned_to_who_needs_it() {
    let mut town = Town::new(ROOM_FOR_TEN);
    let mut holds = Vec::new();
    for node in 0..3 {
        holds.push(town.call(node, tokens(100), false).unwrap());
    }
    town.time += SECOND / 5;
    for turn in 3..30 {
        let node = turn % 3;
        if let Ok(hold) = town.call(node, tokens(100), false) {
            holds.push(hold);
            continue;
        }
        (0..3).for_each(|node| town.tick(node));
        town.time += SECOND / 5;
    }
    assert_eq!(holds.len(), 10);
    let refusal = town.call(0, tokens(1), false).unwrap_err();
    assert!(refusal.is_final);
    assert_eq!((refusal.refusal.used, refusal.refusal.reserved), (0, 1000));
}

#[test]
fn a_plain_call_asks_nobody_once_it_has_asked() {
    let mut town = Town::new("budget = [{ tokens = 1_000_000, window = \"1d\" }]");
    drop(town.call(0, tokens(100), false).unwrap());
    let key = [Arc::clone(&town.keys[0])];
    let holds: Vec<Hold> = (0..100)
        .map_while(|_| attempt(&key, tokens(100), town.now(), Inquiry::default()).ok())
        .collect();
    assert_eq!(holds.len(), 100);
}

#[test]
fn a_lease_that_is_not_renewed_is_used_no_more_and_others_may_have_it() {
    let mut town = Town::new(ROOM_FOR_TEN);
    let hold = town.call(0, tokens(600), false).unwrap();
    assert!(town.call(1, tokens(500), false).is_err());
    drop(hold);
    town.time += LEASE;
    let key = [Arc::clone(&town.keys[0])];
    let denial = attempt(&key, tokens(100), town.now(), Inquiry::default()).unwrap_err();
    assert!(!denial.is_final, "it has to ask before it uses what it was granted");
    assert!(town.call(1, tokens(1000), false).is_ok());
}

#[test]
fn what_is_held_over_the_end_of_a_window_counts_for_all_in_the_next() {
    let mut town = Town::new(ROOM_FOR_TEN);
    let hold = town.call(0, tokens(600), false).unwrap();
    town.time = Duration::from_millis(59_900);
    (0..3).for_each(|node| town.tick(node));
    town.time = Duration::from_mins(1);
    assert!(town.call(1, tokens(500), false).is_err());
    let other = town.call(1, tokens(400), false).unwrap();
    hold.settle(600, 0, town.now());
    other.settle(400, 0, town.now());
    town.time += SECOND * 2;
    (0..3).for_each(|node| town.tick(node));
    assert!(town.call(2, tokens(1), false).is_err());
    town.time = Duration::from_mins(2);
    assert!(town.call(2, tokens(1000), false).is_ok());
}

#[test]
fn when_nobody_can_be_asked_each_keeps_to_its_part_of_a_pace_and_budgets_wait() {
    let town = Town::new("limits = { requests = \"9/h\", concurrency = 100 }");
    let key = [Arc::clone(&town.keys[0])];
    let inquiry = Inquiry { away: true, ..Inquiry::default() };
    let attempts = (0..9).map(|_| attempt(&key, tokens(1), town.now(), inquiry));
    let holds: Vec<Hold> = attempts.map_while(Result::ok).collect();
    assert_eq!(holds.len(), 3);
    let poor = Town::new(ROOM_FOR_TEN);
    let key = [Arc::clone(&poor.keys[0])];
    let denial = attempt(&key, tokens(1), poor.now(), inquiry).unwrap_err();
    assert!(!denial.is_final);
}
