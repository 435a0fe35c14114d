//! What a hundred thousand keys made at run time take in memory, and how long it takes to find one.
//!
//! Run by `cargo bench --bench keys`. Memory is what the process has resident more than before, with
//! the allocator that the gateway uses.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use serde_json::json;
use switchpoint::access::roster::{Mark, Record, Roster};
use switchpoint::access::{Access, Tabs, digest};
use switchpoint::config::Config;
use switchpoint::config::entry::{self, Kind, Terms};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS: usize = 100_000;
/// One in so many has terms of its own.
const OWN_TERMS: usize = 20;
const LOOKS: usize = 1_000_000;
/// Calls that arrive together.
const BATCH: usize = 50;

type Broken = Box<dyn Error>;

fn main() -> Result<(), Broken> {
    let config = Config::parse("", Path::new("switchpoint.toml"), &[]);
    let config = config.map_err(|problems| format!("{problems:?}"))?;
    let roster = Arc::new(Roster::default());
    let before = resident()?;
    let started = Instant::now();
    load(&roster)?;
    let loaded = started.elapsed();
    let held = resident()? - before;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{KEYS} keys loaded in {loaded:?}, {:.1} MiB resident", mib(held))?;
    let access = Access::build(&config, &Tabs::default(), &roster);
    let every: Vec<HeaderMap> = (0..KEYS).map(headers).collect::<Result<_, _>>()?;
    let first = resident()?;
    let started = Instant::now();
    for headers in &every {
        access.admit(headers, None).map_err(|error| error.to_string())?;
    }
    let each = nanos(started.elapsed(), KEYS);
    let more = resident()? - first;
    writeln!(out, "first call of each: {each} ns, {:.1} MiB more for accounts", mib(more))?;
    drop(every);
    let each = nanos(look_up(&access)?, LOOKS);
    writeln!(out, "look-up with reading the header and hashing the secret: {each} ns")?;
    let started = Instant::now();
    for look in 0..LOOKS {
        std::hint::black_box(digest(secret(look % 16).as_str()));
    }
    let each = nanos(started.elapsed(), LOOKS);
    writeln!(out, "of that, hashing (and spelling) a secret: {each} ns")?;
    Ok(())
}

/// How long all look-ups take. As in a server the headers have just been read, and what is known
/// of the key has not: keys are far apart, so that none is in the processor's cache by chance.
fn look_up(access: &Access) -> Result<Duration, Broken> {
    let mut all = Duration::ZERO;
    for first in (0..LOOKS).step_by(BATCH) {
        let batch = (first..first + BATCH).map(|look| headers(look * 7919 % KEYS));
        let batch: Vec<HeaderMap> = batch.collect::<Result<_, _>>()?;
        let started = Instant::now();
        for headers in &batch {
            access.admit(headers, None).map_err(|error| error.to_string())?;
        }
        all += started.elapsed();
    }
    Ok(all)
}

fn load(roster: &Roster) -> Result<(), Broken> {
    let terms = |number: usize| {
        let settings = json!({
            "limits": {"requests": "60/m", "tokens": "100k/m", "concurrency": 8},
            "budget": [{"tokens": 1_000_000, "window": "1d"}],
            "tags": {"number": number.to_string()},
        });
        entry::read(Kind::Key, &settings).map_err(|problems| format!("{problems:?}"))
    };
    let shared: Terms = terms(0)?;
    let now = SystemTime::now();
    let mut records = Vec::with_capacity(1000);
    for number in 0..KEYS {
        let own = number % OWN_TERMS == 0;
        records.push(Record {
            kind: Kind::Key,
            id: format!("key_{number:032x}").into(),
            terms: Some(if own { terms(number)? } else { shared.clone() }),
            created_at: now,
            changed_at: now,
            ended_at: None,
            secrets: vec![Mark { digest: digest(&secret(number)), valid_until: None }],
            has_past: false,
            version: 1,
        });
        if records.len() == 1000 {
            roster.take(std::mem::take(&mut records));
        }
    }
    roster.take(records);
    Ok(())
}

fn secret(number: usize) -> String {
    format!("sk-sp-{number:032x}")
}

fn headers(number: usize) -> Result<HeaderMap, Broken> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", secret(number)))?);
    Ok(headers)
}

/// In bytes, of pages of 4 KiB.
fn resident() -> Result<u64, Broken> {
    let told = std::fs::read_to_string("/proc/self/statm")?;
    let pages = told.split(' ').nth(1).ok_or("no second number")?;
    Ok(pages.parse::<u64>()? * 4096)
}

fn mib(bytes: u64) -> f64 {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    f64::from(kib) / 1024.0
}

fn nanos(time: Duration, times: usize) -> u128 {
    time.as_nanos() / times.max(1) as u128
}
