//! Child processes, and what the kernel says they cost.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// Ticks per second in `/proc`, the same on every Linux a server runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process that ends with this value.
pub(crate) struct Running {
    child: Child,
    /// Removed after the process has ended.
    folder: Option<TempDir>,
}

// === impl Running ===

impl Running {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, folder: None })
    }

    /// Keeps a temporary folder for as long as the process runs.
    pub(crate) fn keeping(self, folder: TempDir) -> Self {
        let mut running = self;
        running.folder = Some(folder);
        running
    }

    /// Starts this program again as one of its own subcommands, and waits for its address.
    pub(crate) fn start_self(arguments: &[&str]) -> (Self, SocketAddr) {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Self::start(&mut command).expect("the program can start itself");
        let mut line = String::new();
        let stdout = running.child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().parse().expect("the first line is the address");
        (running, address)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> io::Result<()> {
        Command::new("kill").arg(self.id().to_string()).status()?;
        self.child.wait().map(|_| ())
    }

    pub(crate) fn poll_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let children = children(self.id());
        // These fail only when a process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The workers of nginx outlive a master that is killed.
        for child in children {
            let _ = Command::new("kill").arg(child.to_string()).status();
        }
    }
}

/// Tells the parent the address, and makes this process end when the parent does.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// User and system time of the process and its children.
pub(crate) fn cpu_time(process: u32) -> Duration {
    let ticks: u64 = family(process).into_iter().filter_map(ticks).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Resident memory of the process and its children, in bytes.
pub(crate) fn resident_bytes(process: u32) -> usize {
    family(process).into_iter().filter_map(resident).sum()
}

/// The process and its children: nginx works in them.
fn family(process: u32) -> Vec<u32> {
    std::iter::once(process).chain(children(process)).collect()
}

fn children(process: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    list.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn ticks(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold spaces; the fields after it are counted from its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn resident(process: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}
