//! In which order the targets of a route are tried.

use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As the config names them.
    #[default]
    Ordered,
    /// At random, each as often as its weight says.
    Weighted,
    /// Those that answer soonest and have the least to do.
    Fastest,
    Cheapest,
    /// A session stays where it is, for the sake of the provider's prompt cache.
    Sticky,
}

/// What the strategies know of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its place in the route.
    pub place: u16,
    /// A hash of provider and model, the same in every process and after every reload.
    pub identity: u64,
    /// One of weight 0 is a last resort, whatever the strategy; `Ordered` heeds no weights.
    pub weight: u32,
    /// From `Load::score`.
    pub score: f64,
    /// What the call is expected to cost, in billionths of a dollar, if the price is known.
    pub cost: Option<u64>,
}

/// Puts the candidates in order, without allocating. `draw` is this call's random number,
/// `session` the hash of what it belongs to.
pub fn order(strategy: Strategy, candidates: &mut [Candidate], draw: u64, session: u64) {
    match strategy {
        Strategy::Ordered => {}
        Strategy::Weighted => {
            sort(candidates, |one| arrival(mix(draw, u64::from(one.place)), one.weight));
        }
        Strategy::Fastest => {
            sort(candidates, |one| one.score);
            two_choices(candidates, draw);
        }
        Strategy::Cheapest => candidates
            .sort_unstable_by_key(|one| (one.weight == 0, one.cost.is_none(), one.cost, one.place)),
        // Weighted rendezvous hashing: each candidate's lot depends on nothing but the session and
        // itself, so that one more or less moves only the sessions that are or were its own.
        Strategy::Sticky => {
            sort(candidates, |one| arrival(mix(session, one.identity), one.weight));
        }
    }
}

/// Smallest first; last resorts after all others, equals as they stood.
fn sort(candidates: &mut [Candidate], key: impl Fn(&Candidate) -> f64) {
    let compare = |one: &Candidate, other: &Candidate| -> Ordering {
        (one.weight == 0)
            .cmp(&(other.weight == 0))
            .then_with(|| key(one).total_cmp(&key(other)))
            .then_with(|| one.place.cmp(&other.place))
    };
    candidates.sort_unstable_by(compare);
}

/// Puts the better of two at random first: who always took the very best would send every call
/// of the moment to the same target.
fn two_choices(candidates: &mut [Candidate], draw: u64) {
    let live = candidates.iter().take_while(|one| one.weight > 0).count();
    let Some(others) = live.checked_sub(1).filter(|others| *others > 0) else { return };
    let first = below(mix(draw, 0), live);
    let second = (first + 1 + below(mix(draw, 1), others)) % live;
    candidates[..=first.min(second)].rotate_right(1);
}

/// When an event that comes `weight` times a second comes first. Sorted by it, candidates form a
/// weighted permutation (Efraimidis and Spirakis, "Weighted random sampling with a reservoir").
fn arrival(lot: u64, weight: u32) -> f64 {
    // Never 0, whose logarithm is none.
    let share = (f64::from(high(lot)) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -share.ln() / f64::from(weight.max(1))
}

fn below(lot: u64, count: usize) -> usize {
    let scaled = (u128::from(lot) * (count as u128)) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

fn high(lot: u64) -> u32 {
    u32::try_from(lot >> 32).unwrap_or(u32::MAX)
}

/// One lot for each pair: the finish of splitmix64, once for either.
fn mix(seed: u64, stream: u64) -> u64 {
    finish(finish(seed) ^ stream)
}

fn finish(seed: u64) -> u64 {
    let mut lot = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    lot = (lot ^ (lot >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    lot = (lot ^ (lot >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    lot ^ (lot >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, prop, prop_assert, prop_assert_eq, prop_compose, prop_oneof, proptest,
    };

    use super::*;

    const ALL: [Strategy; 5] = [
        Strategy::Ordered,
        Strategy::Weighted,
        Strategy::Fastest,
        Strategy::Cheapest,
        Strategy::Sticky,
    ];

    fn candidate(place: u16, weight: u32) -> Candidate {
        let identity = finish(u64::from(place));
        Candidate { place, identity, weight, score: 1.0, cost: None }
    }

    fn of_weights(weights: &[u32]) -> Vec<Candidate> {
        let places = weights.iter().zip(0..);
        places.map(|(&weight, place)| candidate(place, weight)).collect()
    }

    fn places(candidates: &[Candidate]) -> Vec<u16> {
        candidates.iter().map(|one| one.place).collect()
    }

    fn ordered(strategy: Strategy, from: &[Candidate], draw: u64, session: u64) -> Vec<u16> {
        let mut candidates = from.to_vec();
        order(strategy, &mut candidates, draw, session);
        places(&candidates)
    }

    prop_compose! {
        fn any_candidate()(
            weight in 0u32..4, score in prop_oneof![Just(f64::NAN), 0.0..9.0f64],
            cost in proptest::option::of(0u64..5), identity: u64,
        ) -> Candidate {
            Candidate { place: 0, identity, weight, score, cost }
        }
    }

    proptest! {
        #[test]
        fn every_order_is_a_permutation_with_the_last_resorts_last(
            mut candidates in proptest::collection::vec(any_candidate(), 0..40),
            draw: u64, session: u64,
        ) {
            candidates.iter_mut().zip(0..).for_each(|(one, place)| one.place = place);
            for strategy in ALL {
                let result = ordered(strategy, &candidates, draw, session);
                prop_assert_eq!(&result, &ordered(strategy, &candidates, draw, session));
                let weights = result.iter().map(|place| candidates[usize::from(*place)].weight);
                let sorted = weights.map(|weight| weight == 0).is_sorted();
                prop_assert!(strategy == Strategy::Ordered || sorted);
                let mut seen = result;
                seen.sort_unstable();
                prop_assert_eq!(seen, places(&candidates));
            }
        }

        #[test]
        fn a_target_that_goes_moves_only_its_own_sessions(
            weights in proptest::collection::vec(1u32..10, 2..12),
            session: u64, draw: u64, gone: prop::sample::Index,
        ) {
            let before = of_weights(&weights);
            let mut after = before.clone();
            let lost = after.remove(gone.index(weights.len())).place;
            let mut expected = ordered(Strategy::Sticky, &before, draw, session);
            expected.retain(|place| *place != lost);
            let others = ordered(Strategy::Sticky, &after, !draw, session);
            prop_assert_eq!(others, expected);
        }
    }

    /// How often each place came first, in thousandths.
    fn firsts(strategy: Strategy, candidates: &[Candidate]) -> Vec<u32> {
        let mut counts = vec![0; candidates.len()];
        for draw in 0..100_000 {
            let first = ordered(strategy, candidates, draw, draw)[0];
            counts[usize::from(first)] += 1;
        }
        counts.iter().map(|count| count / 100).collect()
    }

    #[test]
    fn weights_hold_over_many_draws_and_many_sessions() {
        for strategy in [Strategy::Weighted, Strategy::Sticky] {
            let shares = firsts(strategy, &of_weights(&[70, 20, 10, 0]));
            for (share, wanted) in shares.iter().zip([700, 200, 100, 0]) {
                assert!(share.abs_diff(wanted) <= wanted * 3 / 100 + 1, "{strategy:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn what_comes_second_holds_to_the_weights_too() {
        let candidates = of_weights(&[1, 6, 3]);
        let after_second = (0..100_000)
            .map(|draw| ordered(Strategy::Weighted, &candidates, draw, 0))
            .filter(|order| order[0] == 1);
        let (mut third, mut all) = (0_u32, 0_u32);
        for order in after_second {
            all += 1;
            third += u32::from(order[1] == 2);
        }
        assert!((third * 100 / all).abs_diff(75) <= 1, "{third} of {all}");
    }

    #[test]
    fn fastest_takes_the_better_of_two_and_then_goes_by_the_score() {
        let mut candidates = of_weights(&[1, 1, 1, 1, 0]);
        for (one, score) in candidates.iter_mut().zip([4.0, 1.0, 3.0, 2.0, 0.1]) {
            one.score = score;
        }
        // Of the six pairs of four, the best is in three, the second best in two more.
        let shares = firsts(Strategy::Fastest, &candidates);
        for (share, wanted) in shares.iter().zip([0, 500, 167, 333, 0]) {
            assert!(share.abs_diff(wanted) <= 10, "{shares:?}");
        }
        for draw in 0..100 {
            let order = ordered(Strategy::Fastest, &candidates, draw, 0);
            let rest: Vec<u16> = [1, 3, 2, 0, 4].into_iter().filter(|at| *at != order[0]).collect();
            assert_eq!(order[1..], rest);
            assert_eq!(ordered(Strategy::Fastest, &candidates[..2], draw, 0), [1, 0]);
        }
    }

    #[test]
    fn cheapest_goes_by_the_cost_then_by_the_place_and_the_unpriced_come_last() {
        let mut candidates = of_weights(&[1, 1, 1, 1]);
        let costs = [None, Some(7), Some(3), Some(7)];
        candidates.iter_mut().zip(costs).for_each(|(one, cost)| one.cost = cost);
        assert_eq!(ordered(Strategy::Cheapest, &candidates, 5, 5), [2, 1, 3, 0]);
    }

    #[test]
    fn ordered_leaves_everything_where_it_is() {
        let candidates = of_weights(&[1, 0, 9]);
        assert_eq!(ordered(Strategy::Ordered, &candidates, 5, 5), [0, 1, 2]);
    }
}
