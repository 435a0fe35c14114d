//! What agent runs cost: a step, a thousand runs at once, and runs that wait for a person.
//!
//! Run by `cargo bench --bench agents`. The gateway is a process of its own, on SQLite; model and
//! tool are scripted and stand, as the clients do, in this one.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a benchmark reports on stdout, stops at the first surprise and needs real clocks"
)]

#[path = "../compare/process.rs"]
#[expect(dead_code, reason = "the comparison uses all of it")]
mod process;
#[path = "../compare/report.rs"]
mod report;
mod scene;
#[path = "../compare/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use report::{Table, count, median, microseconds, percentile, show};
use scene::{Answer, Scene};
use tokio::task::JoinSet;

/// Calls of the model in one run; all but the last ask for the tool.
const STEPS: usize = 10;
const ALONE: usize = 300;
const FLEET: usize = 1000;
const WAITING: usize = 5000;
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    rlimit::increase_nofile_limit(u64::MAX).expect("the open file limit can be raised");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        step().await;
        fleet().await;
        waiting().await;
    });
}

/// One run after the other beside the same calls made by hand: what is more is the engine's.
async fn step() {
    println!("\nOne ten-step run at a time, and what a step takes beyond its calls, in µs:");
    let table = Table::start(&["durability", "by hand", "as a run", "a step adds, p50", "p99"]);
    for durability in ["relaxed", "strict"] {
        let scene = Scene::start(durability).await;
        let (mut by_hand, mut runs) = (Vec::new(), Vec::new());
        for round in 0..ALONE + ALONE / 10 {
            let (hand, run) = (scene.by_hand(STEPS).await, scene.run(round).await);
            assert!(run.completed(STEPS), "{run:?}");
            // The first tenth only warms up.
            if round >= ALONE / 10 {
                by_hand.push(hand);
                runs.push(run.took);
            }
        }
        let usual = Duration::from_secs_f64(median(by_hand.iter().map(Duration::as_secs_f64)));
        let mut added: Vec<Duration> = runs
            .iter()
            .map(|run| run.saturating_sub(usual) / u32::try_from(STEPS).unwrap())
            .collect();
        added.sort_unstable();
        table.row(&[
            durability.to_owned(),
            show(microseconds(usual), 0),
            show(median(runs.iter().map(|run| microseconds(*run))), 0),
            show(microseconds(percentile(&added, 50)), 0),
            show(microseconds(percentile(&added, 99)), 0),
        ]);
    }
}

async fn fleet() {
    println!("\n{FLEET} ten-step runs at once:");
    let table = Table::start(&["durability", "completed", "seconds", "steps/s", "peak MiB"]);
    for durability in ["relaxed", "strict"] {
        let scene = Scene::start(durability).await;
        let started = Instant::now();
        let mut runs = JoinSet::new();
        for number in 0..FLEET {
            let client = scene.client();
            runs.spawn(async move { client.run(number).await });
        }
        let answers: Vec<Answer> = runs.join_all().await;
        let took = started.elapsed().as_secs_f64();
        let completed = answers.iter().filter(|answer| answer.completed(STEPS)).count();
        if let Some(odd) = answers.iter().find(|answer| !answer.completed(STEPS)) {
            println!("{odd:?}");
        }
        table.row(&[
            durability.to_owned(),
            format!("{completed} of {FLEET}"),
            show(took, 1),
            show(count(completed * STEPS) / took, 0),
            show(count(scene.peak_bytes()) / MIB, 0),
        ]);
    }
}

/// Runs that have asked for an approval, before and after a thousandth of them exist.
async fn waiting() {
    println!("\n{WAITING} runs that wait for a person:");
    let table = Table::start(&["waiting", "resident before, MiB", "after, MiB", "KiB a run"]);
    let scene = Scene::start("relaxed").await;
    // What is kept of any run at all (connections, statements, pages) is not counted.
    scene.wait_for_people(WAITING / 10).await;
    let before = scene.settled_bytes().await;
    scene.wait_for_people(WAITING).await;
    let after = scene.settled_bytes().await;
    let each = count(after.saturating_sub(before)) / count(WAITING) / 1024.0;
    table.row(&[
        WAITING.to_string(),
        show(count(before) / MIB, 1),
        show(count(after) / MIB, 1),
        show(each, 2),
    ]);
}
