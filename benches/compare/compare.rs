//! The comparison itself: every subject gets the same traffic, in turns.

use std::{io, time::Duration};

use crate::{
    CompareOptions,
    load::HeldStreams,
    process::Running,
    report::{Table, count, show},
    servers,
    subjects::{self, Measurement, Subject},
    traffic::{Case, FAST, HUGE, LONG, PACED, SLOW, SMALL},
};

const CASES: [Case; 5] = [SMALL, LONG, HUGE, FAST, PACED];

/// Requests per second for the latencies; far from saturation.
const MODEST_RATE: u32 = 1000;

/// How long and how often to measure.
struct Effort {
    rounds: usize,
    window: Duration,
    held_streams: &'static [usize],
}

/// One subject's memory, in bytes, and what its open streams cost.
struct Memory {
    idle: f64,
    /// With each number of open streams.
    held: Vec<f64>,
    /// With the last number of them.
    cpu_per_chunk: f64,
}

pub(crate) async fn run(options: CompareOptions) {
    let effort = if options.quick {
        Effort { rounds: 1, window: Duration::from_millis(400), held_streams: &[1000] }
    } else {
        let window = Duration::from_millis(1200);
        Effort { rounds: options.rounds, window, held_streams: &[1000, 5000] }
    };
    let (_upstream, address) = Running::start_self(&["upstream"]);
    let subjects = gather(&options, &address.to_string()).await;
    report_memory(&subjects, &effort).await;
    report_saturation(&subjects, &effort).await;
    report_latency(&subjects, &effort).await;
    report_translation(&subjects, &address.to_string(), &effort).await;
}

/// The upstream itself, the floor, the gateway, and whoever else is there.
async fn gather(options: &CompareOptions, upstream: &str) -> Vec<Subject> {
    let direct = Subject::elsewhere("direct", &format!("http://{upstream}/v1"), None);
    let mut subjects = vec![direct, Subject::floor("floor", options.layout, upstream)];
    for (name, started) in [
        ("gateway", servers::start_gateway(upstream).await),
        ("nginx", servers::start_nginx(upstream).await),
    ] {
        match started {
            Ok(subject) => subjects.push(subject),
            Err(error) => println!("Without {name}: {error}."),
        }
    }
    for named in &options.urls {
        let (name, url) = named.split_once('=').expect("--url is NAME=URL");
        let process = options.pids.iter().find_map(|pid| pid.strip_prefix(name)?.strip_prefix('='));
        let process = process.map(|pid| pid.parse().expect("--pid is NAME=PID"));
        subjects.push(Subject::elsewhere(name, url, process));
    }
    subjects
}

async fn report_saturation(subjects: &[Subject], effort: &Effort) {
    println!("\nIn closed loop, medians of {} rounds; latencies in µs.", effort.rounds);
    let table = Table::start(&[
        "case",
        "connections",
        "subject",
        "CPU µs/request",
        "× floor",
        "CPU µs/chunk",
        "requests/s",
        "× floor",
        "p50",
        "p99",
    ]);
    for case in CASES {
        let measured = subjects::take_turns(subjects, effort.rounds, async |subject| {
            subject.saturate(&case, effort.window).await
        })
        .await;
        let floor = middle(subjects, &measured, "floor");
        for (subject, measurements) in subjects.iter().zip(&measured) {
            let middle = Measurement::median(measurements);
            let chunk = if case.streams { middle.cpu_per_chunk } else { f64::NAN };
            table.row(&[
                case.name.to_owned(),
                case.connections.to_string(),
                subject.name.clone(),
                show(middle.cpu_per_request, 1),
                show(middle.cpu_per_request / floor.cpu_per_request, 2),
                show(chunk, 2),
                show(middle.per_second, 0),
                show(middle.per_second / floor.per_second, 2),
                show(middle.p50, 0),
                show(middle.p99, 0),
            ]);
        }
    }
}

/// What it costs to put calls into Anthropic's words and the answers back into OpenAI's, beside the
/// same calls passed on as they are.
async fn report_translation(subjects: &[Subject], upstream: &str, effort: &Effort) {
    let Some(gateway) = subjects.iter().find(|subject| subject.name == "gateway") else { return };
    let translating = match servers::start_translating(upstream).await {
        Ok(translating) => translating,
        Err(error) => {
            println!("Without translation: {error}.");
            return;
        }
    };
    println!("\nOpenAI chat to Anthropic, medians of {} rounds.", effort.rounds);
    let table = Table::start(&["case", "subject", "CPU µs/request", "CPU µs/chunk", "× verbatim"]);
    let pair = [gateway, &translating];
    for case in [SMALL, FAST, PACED] {
        let measured = subjects::take_turns(&pair, effort.rounds, async |subject| {
            subject.saturate(&case, effort.window).await
        })
        .await;
        let verbatim = Measurement::median(&measured[0]);
        for (subject, measurements) in pair.iter().zip(&measured) {
            let middle = Measurement::median(measurements);
            let chunk = if case.streams { middle.cpu_per_chunk } else { f64::NAN };
            table.row(&[
                case.name.to_owned(),
                subject.name.clone(),
                show(middle.cpu_per_request, 1),
                show(chunk, 2),
                show(middle.cpu_per_request / verbatim.cpu_per_request, 2),
            ]);
        }
    }
}

async fn report_latency(subjects: &[Subject], effort: &Effort) {
    println!("\nSmall chat at {MODEST_RATE}/s over 32 connections; latencies in µs.");
    let table =
        Table::start(&["subject", "p50", "p99", "added p50", "added p99", "CPU µs/request"]);
    let case = SMALL.with_connections(32);
    let measured = subjects::take_turns(subjects, effort.rounds, async |subject| {
        subject.pace(&case, MODEST_RATE, effort.window * 2).await
    })
    .await;
    let direct = middle(subjects, &measured, "direct");
    for (subject, measurements) in subjects.iter().zip(&measured) {
        let middle = Measurement::median(measurements);
        table.row(&[
            subject.name.clone(),
            show(middle.p50, 0),
            show(middle.p99, 0),
            show(middle.p50 - direct.p50, 0),
            show(middle.p99 - direct.p99, 0),
            show(middle.cpu_per_request, 1),
        ]);
    }
}

/// The medians of the subject with the name.
fn middle(subjects: &[Subject], measured: &[Vec<Measurement>], name: &str) -> Measurement {
    let place = subjects.iter().position(|it| it.name == name).expect("the subject takes part");
    Measurement::median(&measured[place])
}

async fn report_memory(subjects: &[Subject], effort: &Effort) {
    println!("\nResident memory with open streams of one chunk each second.");
    let mut columns = vec!["subject".to_owned(), "idle MiB".to_owned()];
    for total in effort.held_streams {
        columns.push(format!("{total} streams, MiB"));
        columns.push("KiB/stream".to_owned());
    }
    columns.push("CPU µs/chunk".to_owned());
    let table = Table::start(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for subject in subjects.iter().filter(|subject| subject.has_process()) {
        let memory = match measure_memory(subject, effort).await {
            Ok(memory) => memory,
            Err(error) => {
                println!("{}: {error}", subject.name);
                continue;
            }
        };
        let mut cells = vec![subject.name.clone(), show(memory.idle / 1_048_576.0, 1)];
        for (total, held) in effort.held_streams.iter().zip(&memory.held) {
            cells.push(show(held / 1_048_576.0, 1));
            cells.push(show((held - memory.idle) / 1024.0 / count(*total), 1));
        }
        cells.push(show(memory.cpu_per_chunk, 1));
        table.row(&cells);
    }
}

async fn measure_memory(subject: &Subject, effort: &Effort) -> io::Result<Memory> {
    let mut memory =
        Memory { idle: subject.resident_bytes(), held: Vec::new(), cpu_per_chunk: f64::NAN };
    let mut streams = HeldStreams::new(&subject.target, &SLOW);
    for total in effort.held_streams {
        streams.grow(*total).await?;
        let (cpu, events) = (subject.cpu_time(), streams.events());
        // Whole seconds, since each stream sends one chunk in each.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let events = count(streams.events() - events);
        memory.cpu_per_chunk = (subject.cpu_time() - cpu) / events;
        memory.held.push(subject.resident_bytes());
    }
    drop(streams);
    // The upstream notices at its next chunk; the next subject should not pay for that.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    Ok(memory)
}
