//! What a call costs more with limits and budgets than with authentication alone, and how much less
//! when its answer is remembered: gateways that differ in that only, in turns.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    process::Running,
    report::{Table, show},
    servers::{self, OPENAI, Setting},
    subjects::{self, Measurement, Subject},
    traffic::{Case, FAST, LONG, SMALL},
};

/// The key's limits and budget, and its team's budget, none of which is ever reached.
const LIMITS: &str = "limits = { requests = \"100M/h\", concurrency = 1000 }\n";
pub(crate) const BUDGETS: &str = "team = \"search\"\n\
    limits = { requests = \"100M/h\", tokens = \"1000000M/h\", concurrency = 1000 }\n\
    budget = [{ tokens = 900_000_000_000, window = \"1d\" }]\n\
    [teams.search]\nbudget = [{ usd = 900_000.0, window = \"30d\" }]\n\
    [models.\"bench/bench-small\"]\nprice = { input = 0.15, output = 0.60 }\n\
    [models.\"bench/bench-fast\"]\nprice = { input = 0.15, output = 0.60 }\n";
pub(crate) const CACHE: &str = "[cache]\nmode = \"on\"\nsampled = true\n";
const TERMS: [(&str, &str); 4] = [
    ("authentication only", ""),
    ("limits", LIMITS),
    ("limits and budgets", BUDGETS),
    ("remembered", CACHE),
];

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Another build of the gateway, measured in turns with this one.
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// Measure that build only.
    #[arg(long, requires = "beside")]
    only: bool,
}

pub(crate) async fn run(options: Options) {
    let (_upstream, address) = Running::start_self(&["upstream"]);
    let upstream = address.to_string();
    let this = Path::new(env!("CARGO_BIN_EXE_switchpoint"));
    let mut subjects = Vec::new();
    for (terms, written) in TERMS {
        let this = Some(("", this)).filter(|_| !options.only);
        let other = options.beside.as_deref().map(|program| (" (the other)", program));
        for (mark, program) in this.into_iter().chain(other) {
            match start(&upstream, program, &format!("{terms}{mark}"), written).await {
                Ok(subject) => subjects.push(subject),
                Err(error) => println!("Without {terms}{mark}: {error}."),
            }
        }
    }
    let (rounds, seconds) = (options.rounds, options.seconds);
    println!("Medians of {rounds} rounds, {seconds} s each.");
    let table = Table::start(&["case", "gateway", "CPU µs/request", "× the first", "requests/s"]);
    for case in [SMALL, LONG, FAST] {
        let measured = subjects::take_turns(&subjects, rounds, async |subject| {
            subject.saturate(&case, Duration::from_secs_f64(seconds)).await
        });
        print_rows(&table, &subjects, &case, &measured.await);
    }
}

/// One with a store on disk, as it is in service.
async fn start(
    upstream: &str,
    program: &Path,
    name: &str,
    terms: &str,
) -> std::io::Result<Subject> {
    let setting = Setting { store: "sqlite:bench.db", provider: OPENAI, terms };
    servers::start_by(name, Command::new(program), &setting.before(upstream)).await
}

fn print_rows(table: &Table, subjects: &[Subject], case: &Case, measured: &[Vec<Measurement>]) {
    // Each round by itself: what slows the machine slows both.
    let ratio = |measurements: &[Measurement]| {
        let pairs = measurements.iter().zip(&measured[0]);
        crate::report::median(pairs.map(|(one, first)| one.cpu_per_request / first.cpu_per_request))
    };
    for (subject, measurements) in subjects.iter().zip(measured) {
        let middle = Measurement::median(measurements);
        table.row(&[
            case.name.to_owned(),
            subject.name.clone(),
            show(middle.cpu_per_request, 1),
            show(ratio(measurements), 2),
            show(middle.per_second, 0),
        ]);
    }
}
