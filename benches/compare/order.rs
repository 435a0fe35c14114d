//! Writes down which functions run at the start and in calls: the list by which `build.rs` has the
//! linker put them beside one another. Those of calls alone come first, so that a gateway at rest
//! has none of their pages in memory, and the busiest of either kind lie where the kinds meet.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    costs::{BUDGETS, CACHE},
    load::Fleet,
    process::Running,
    servers::{self, ANTHROPIC, OPENAI, Setting},
    traffic::{Case, FAST, LONG, SMALL},
};

/// Requests of each kind over each of a few connections.
const REQUESTS: usize = 50;
const CONNECTIONS: usize = 4;
/// So long a gateway rests, for what it does every few seconds.
const REST: Duration = Duration::from_secs(12);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Another build: the one that ships, without what benchmarks need of the same crates, has
    /// functions of other names.
    #[arg(long, value_name = "PROGRAM")]
    also: Vec<PathBuf>,
    /// Where to write the list.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/order.txt"))]
    to: PathBuf,
}

pub(crate) async fn run(options: Options) {
    let (_upstream, address) = Running::start_self(&["upstream"]);
    let upstream = address.to_string();
    let (mut costs, mut at_rest) = (HashMap::new(), HashSet::new());
    let this = Path::new(env!("CARGO_BIN_EXE_switchpoint"));
    for program in std::iter::once(this).chain(options.also.iter().map(PathBuf::as_path)) {
        for (provider, terms) in [(OPENAI, ""), (OPENAI, BUDGETS), (OPENAI, CACHE), (ANTHROPIC, "")]
        {
            let setting = Setting { store: "sqlite:bench.db", provider, terms };
            let counted = count(program, &setting.before(&upstream), &[SMALL, LONG, FAST]).await;
            for (function, cost) in counted.expect("valgrind counts the calls") {
                *costs.entry(function).or_insert(0) += cost;
            }
        }
        for store in ["sqlite:bench.db", "memory:"] {
            let setting = Setting { store, provider: OPENAI, terms: "" };
            let counted = count(program, &setting.before(&upstream), &[]).await;
            for (function, cost) in counted.expect("valgrind counts the start") {
                at_rest.insert(function.clone());
                costs.entry(function).or_insert(cost);
            }
        }
    }
    let mut functions: Vec<(String, u64)> = costs.into_iter().collect();
    functions.sort_by(|(one, cost), (other, more)| {
        let (rests, others) = (at_rest.contains(one), at_rest.contains(other));
        let busier = if rests { more.cmp(cost) } else { cost.cmp(more) };
        rests.cmp(&others).then(busier).then_with(|| one.cmp(other))
    });
    let known = fs::read_to_string(&options.to).unwrap_or_default();
    let known: Vec<&str> = known.lines().collect();
    let new = functions.iter().filter(|(name, _)| !known.contains(&name.as_str())).count();
    println!("{} functions, {new} of them new, in {}", functions.len(), options.to.display());
    let list: String = functions.into_iter().map(|(name, _)| name + "\n").collect();
    fs::write(&options.to, list).expect("the list can be written");
}

/// What each function of the gateway costs in its start and some calls, or in its rest if there are
/// none.
async fn count(
    program: &Path,
    configuration: &str,
    cases: &[Case],
) -> io::Result<HashMap<String, u64>> {
    let program = program.canonicalize()?;
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--demangle=no", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", counts.display())).arg(&program);
    let gateway = servers::start_by("counted", command, configuration).await?;
    if cases.is_empty() {
        tokio::time::sleep(REST).await;
    }
    for case in cases {
        let case = case.with_connections(CONNECTIONS);
        Fleet::open(&gateway.target, &case).await?.repeat(REQUESTS).await?;
    }
    gateway.end()?;
    Ok(read(&fs::read_to_string(counts)?, &program))
}

/// The functions of a program and their own costs, from what callgrind writes (its format is
/// described at <https://valgrind.org/docs/manual/cl-format.html>).
fn read(counts: &str, program: &Path) -> HashMap<String, u64> {
    let (mut objects, mut functions) = (HashMap::new(), HashMap::new());
    let (mut costs, mut object, mut function) = (HashMap::new(), String::new(), String::new());
    let mut is_of_another = false;
    for line in counts.lines() {
        if let Some((key, name)) = line.split_once('=') {
            match key {
                "ob" => object = named(name, &mut objects),
                "cob" => drop(named(name, &mut objects)),
                "fn" => function = named(name, &mut functions),
                "cfn" => drop(named(name, &mut functions)),
                "calls" => is_of_another = true,
                _ => {}
            }
            continue;
        }
        let mut numbers = line.split(' ').skip(1).map(str::parse::<u64>);
        let is_cost =
            line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first));
        let (true, Some(Ok(cost))) = (is_cost, numbers.next()) else { continue };
        if !std::mem::take(&mut is_of_another) && Path::new(&object) == program {
            // A function that calls itself stands there twice.
            let name = function.split('\'').next().unwrap_or_default();
            // What has no symbol is told by its address.
            if !name.contains(' ') && !name.starts_with("0x") {
                *costs.entry(name.to_owned()).or_insert(0) += cost;
            }
        }
    }
    costs
}

/// The name behind `(12)`, which is written out only once.
fn named(text: &str, known: &mut HashMap<String, String>) -> String {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    if !name.is_empty() {
        known.insert(number.to_owned(), name.to_owned());
    }
    known.get(number).cloned().unwrap_or_default()
}
