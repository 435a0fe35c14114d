//! Compares the gateway with a bare proxy and its peers, process by process.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a benchmark reports on stdout, stops at the first surprise and needs real clocks"
)]

mod compare;
mod costs;
mod floor;
mod layouts;
mod load;
mod order;
mod process;
mod reply;
mod report;
mod servers;
mod subjects;
mod traffic;
mod upstream;
mod wire;

use clap::{Args, Parser, Subcommand};

use floor::Layout;

/// The gateway's own allocator, so that the floor differs in nothing but its work.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "compare", about = "Measures the gateway against a bare proxy")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: CompareOptions,
    /// Cargo adds this to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Args)]
struct CompareOptions {
    /// About thirty seconds: one round, shorter windows, no 5,000 streams.
    #[arg(long)]
    quick: bool,
    /// Rounds over every subject; the report shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The layout of the floor's runtime; best the one the gateway itself has.
    #[arg(long, value_enum, default_value_t = Layout::Dispatch)]
    layout: Layout,
    /// A gateway that already runs, as NAME=http://host:port/v1.
    #[arg(long = "url", value_name = "NAME=URL")]
    urls: Vec<String>,
    /// The process of such a gateway, as NAME=PID, so that its CPU is counted.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pids: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves scripted completions until stdin closes.
    Upstream,
    /// Serves the bare reverse proxy until stdin closes.
    Floor {
        #[arg(long, value_enum)]
        layout: Layout,
        /// Where requests go, as host:port.
        #[arg(long)]
        upstream: String,
    },
    /// Sends one kind of traffic to one address and prints what came back.
    Load(load::Options),
    /// Compares the cost of a call with limits, with budgets and with its answer remembered.
    Costs(costs::Options),
    /// Writes down in which order the linker is to put the gateway's functions.
    Order(order::Options),
    /// Compares the floor's three runtime layouts.
    Layouts {
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

fn main() {
    rlimit::increase_nofile_limit(u64::MAX).expect("the open file limit can be raised");
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Floor { layout, upstream }) => floor::run(layout, &upstream),
        Some(Command::Upstream) => block_on(upstream::serve()),
        Some(Command::Load(options)) => block_on(load::command(options)),
        Some(Command::Costs(options)) => block_on(costs::run(options)),
        Some(Command::Order(options)) => block_on(order::run(options)),
        Some(Command::Layouts { rounds, seconds }) => block_on(layouts::run(rounds, seconds)),
        None => block_on(compare::run(arguments.compare)),
    }
}

/// One thread is enough for everything but the floor.
fn block_on<F: Future<Output = ()>>(future: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}
