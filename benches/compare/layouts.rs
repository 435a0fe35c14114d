//! Which runtime layout is cheapest: the floor in each of them, in turns.

use std::time::Duration;

use crate::{
    process::Running,
    report::{Table, median, show},
    subjects::{Measurement, Subject},
    traffic::{Case, FAST, PACED, SMALL},
};

const LAYOUTS: [&str; 3] = ["shared", "per-core", "dispatch"];

const COLUMNS: [&str; 9] = [
    "case",
    "connections",
    "layout",
    "CPU µs/request",
    "CPU µs/chunk",
    "requests/s",
    "worst round",
    "p50",
    "p99",
];

/// Requests per second for the latencies: an idle machine's and a busy one's.
const RATES: [u32; 2] = [1000, 6000];

pub(crate) async fn run(rounds: usize, seconds: f64) {
    let (_upstream, address) = Running::start_self(&["upstream"]);
    let upstream = address.to_string();
    let subjects = LAYOUTS.map(|layout| Subject::floor(layout, layout, &upstream));
    let duration = Duration::from_secs_f64(seconds);
    let cases = [1, 4, 16, 64, 256].map(|connections| SMALL.with_connections(connections));
    let streams = [FAST.with_connections(4), FAST, PACED];
    println!("Medians of {rounds} rounds, {seconds} s each; latencies in µs.");

    let table = Table::start(&COLUMNS);
    for case in cases.iter().chain(&streams) {
        let mut measured = LAYOUTS.map(|_| Vec::new());
        for _ in 0..rounds {
            for (subject, measurements) in subjects.iter().zip(&mut measured) {
                measurements.push(subject.saturate(case, duration).await.unwrap());
            }
        }
        print_rows(&table, case, case.name, &measured);
    }
    for rate in RATES {
        let case = SMALL.with_connections(32);
        let mut measured = LAYOUTS.map(|_| Vec::new());
        for _ in 0..rounds {
            for (subject, measurements) in subjects.iter().zip(&mut measured) {
                measurements.push(subject.pace(&case, rate, duration).await.unwrap());
            }
        }
        print_rows(&table, &case, &format!("small chat at {rate}/s"), &measured);
    }
}

fn print_rows(table: &Table, case: &Case, name: &str, measured: &[Vec<Measurement>]) {
    for (layout, measurements) in LAYOUTS.iter().zip(measured) {
        let middle = |field: fn(&Measurement) -> f64| median(measurements.iter().map(field));
        let worst = measurements.iter().map(|it| it.per_second).fold(f64::INFINITY, f64::min);
        let chunk = if case.streams { middle(|it| it.cpu_per_chunk) } else { f64::NAN };
        table.row(&[
            name.to_owned(),
            case.connections.to_string(),
            (*layout).to_owned(),
            show(middle(|it| it.cpu_per_request), 1),
            show(chunk, 2),
            show(middle(|it| it.per_second), 0),
            show(worst, 0),
            show(middle(|it| it.p50), 0),
            show(middle(|it| it.p99), 0),
        ]);
    }
}
