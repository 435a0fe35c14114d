//! Which runtime layout is cheapest: the floor in each of them, in turns.

use std::time::Duration;

use clap::ValueEnum;

use crate::{
    floor::Layout,
    process::Running,
    report::{Table, show},
    subjects::{self, Measurement, Subject},
    traffic::{Case, FAST, PACED, SMALL},
};

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
const RATES: [(u32, &str); 2] = [(1000, "small chat at 1000/s"), (6000, "small chat at 6000/s")];

pub(crate) async fn run(rounds: usize, seconds: f64) {
    let (_upstream, address) = Running::start_self(&["upstream"]);
    let upstream = address.to_string();
    let subjects: Vec<Subject> = Layout::value_variants()
        .iter()
        .map(|layout| Subject::floor(layout.name(), *layout, &upstream))
        .collect();
    let duration = Duration::from_secs_f64(seconds);
    println!("Medians of {rounds} rounds, {seconds} s each; latencies in µs.");

    let table = Table::start(&COLUMNS);
    let chats = [1, 4, 16, 64, 256].map(|connections| SMALL.with_connections(connections));
    for case in chats.iter().chain(&[FAST.with_connections(4), FAST, PACED]) {
        let measured = subjects::take_turns(&subjects, rounds, async |subject| {
            subject.saturate(case, duration).await
        });
        print_rows(&table, &subjects, case, &measured.await);
    }
    for (rate, name) in RATES {
        let case = Case { name, ..SMALL.with_connections(32) };
        let measured = subjects::take_turns(&subjects, rounds, async |subject| {
            subject.pace(&case, rate, duration).await
        });
        print_rows(&table, &subjects, &case, &measured.await);
    }
}

fn print_rows(table: &Table, subjects: &[Subject], case: &Case, measured: &[Vec<Measurement>]) {
    for (subject, measurements) in subjects.iter().zip(measured) {
        let middle = Measurement::median(measurements);
        let worst = measurements.iter().map(|it| it.per_second).fold(f64::INFINITY, f64::min);
        let chunk = if case.streams { middle.cpu_per_chunk } else { f64::NAN };
        table.row(&[
            case.name.to_owned(),
            case.connections.to_string(),
            subject.name.clone(),
            show(middle.cpu_per_request, 1),
            show(chunk, 2),
            show(middle.per_second, 0),
            show(worst, 0),
            show(middle.p50, 0),
            show(middle.p99, 0),
        ]);
    }
}
