//! Where calls are noted the moment they begin and end: lines in files beside the database.
//!
//! A line is written with one `write(2)`, so the end of the process loses none, however it comes.
//! A power cut may take the last moments, as it may of the database.

use std::collections::{HashSet, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::rows::CallRow;

/// Bytes of one file.
pub(super) const SEGMENT: u64 = 16 << 20;
/// Records that wait in memory for a disk that takes none.
const WAITING: usize = 1 << 16;
/// Records in files that are kept in memory too, so that the importer need not read them.
const AT_HAND: usize = 1 << 14;
/// Lines written under one lock.
const BURST: usize = 64;
/// How a record begins of a call that begins: with its id.
const OPEN: &[u8] = b"{\"open\":[\"";
/// Bytes read at once, and so the longest line there can be.
const CHUNK: u64 = 1 << 20;

/// Written by every worker, read by one importer.
pub(super) struct Journal {
    tail: Mutex<Tail>,
    /// There is a folder, so records are spelled out.
    has_place: AtomicBool,
    pending: AtomicU64,
    lost: AtomicU64,
    healthy: AtomicBool,
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// How the call is to stand in the ledger if nothing more is heard of it.
    Open(Box<CallRow>),
    Settled(Box<CallRow>),
}

/// Up to where lines have been taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Some lines, and where the next begin.
pub(super) struct Piece {
    /// Without the beginnings of calls that end here too.
    pub(super) records: Vec<Record>,
    pub(super) lines: Lines,
    pub(super) next: Position,
}

/// How many there were.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    pub(super) whole: usize,
    pub(super) damaged: usize,
}

struct Tail {
    /// None: records go by way of memory.
    place: Option<Place>,
    waiting: VecDeque<Record>,
    /// Of those in the files the next to be taken in, unless there are too many.
    fresh: VecDeque<Fresh>,
}

/// A record, and where its line begins and ends.
struct Fresh {
    record: Record,
    from: Position,
    next: Position,
}

/// The folder of the segments, which is ours while we hold its lock.
struct Place {
    folder: PathBuf,
    end: Position,
    /// None until the first line of a segment.
    file: Option<File>,
    segment: u64,
    _lock: File,
}

// === impl Journal ===

impl Journal {
    pub(super) fn new() -> Self {
        let tail = Tail { place: None, waiting: VecDeque::new(), fresh: VecDeque::new() };
        Self {
            tail: Mutex::new(tail),
            has_place: AtomicBool::new(false),
            pending: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }

    /// Goes on in the folder, of which the caller holds the lock, behind `end`.
    pub(super) fn settle_in(&self, folder: &Path, lock: File, end: Position, segment: u64) {
        let folder = folder.to_owned();
        let place = Place { folder, end, file: None, segment, _lock: lock };
        self.tail().place = Some(place);
        self.has_place.store(true, Ordering::Release);
    }

    /// Notes a record. Never fails: what the disk does not take waits in memory, within a bound.
    pub(super) fn append(&self, record: Record) {
        let line = self.has_place.load(Ordering::Acquire).then(|| line(&record));
        if matches!(line, Some(None)) {
            return self.lose();
        }
        let mut tail = self.tail();
        let Tail { place, waiting, fresh } = &mut *tail;
        let failure = match (place, line.flatten()) {
            // Memory does not outlive the process, so this would tell nobody anything.
            (None, _) if matches!(record, Record::Open(_)) => return,
            (Some(place), Some(line)) if waiting.is_empty() => match place.write(&line) {
                Ok(from) => {
                    if fresh.len() < AT_HAND {
                        fresh.push_back(Fresh { record, from, next: place.end });
                    }
                    self.pending.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => Some(error),
            },
            _ => None,
        };
        if waiting.len() >= WAITING {
            drop(tail);
            return self.lose();
        }
        waiting.push_back(record);
        self.pending.fetch_add(1, Ordering::Relaxed);
        drop(tail);
        if let Some(error) = failure {
            self.healthy.store(false, Ordering::Relaxed);
            tracing::error!(%error, "the journal cannot be written; calls wait in memory");
        }
    }

    /// Writes what waits for the disk, if it takes it now. Nobody waits long behind this.
    pub(super) fn retry(&self) {
        while self.retry_some() {}
    }

    /// Whether there may be more that can be written.
    fn retry_some(&self) -> bool {
        let mut tail = self.tail();
        let Tail { place: Some(place), waiting, .. } = &mut *tail else { return false };
        for _ in 0..BURST {
            let Some(record) = waiting.front() else {
                self.healthy.store(true, Ordering::Relaxed);
                return false;
            };
            match line(record) {
                Some(line) if place.write(&line).is_err() => return false,
                Some(_) => {}
                None => self.lose(),
            }
            waiting.pop_front();
        }
        true
    }

    /// What waits in memory because there is no folder.
    pub(super) fn take(&self, most: usize) -> Vec<Record> {
        let mut tail = self.tail();
        if tail.place.is_some() {
            return Vec::new();
        }
        if tail.waiting.is_empty() {
            self.healthy.store(true, Ordering::Relaxed);
        }
        let count = most.min(tail.waiting.len());
        tail.waiting.drain(..count).collect()
    }

    pub(super) fn put_back(&self, records: Vec<Record>) {
        let mut tail = self.tail();
        for record in records.into_iter().rev() {
            tail.waiting.push_front(record);
        }
    }

    /// The records from `from` on as far as they are at hand, and where the next begins. Of earlier
    /// ones none is kept any more.
    pub(super) fn take_fresh(
        &self,
        from: Position,
        most: usize,
    ) -> Option<(Vec<Record>, Position)> {
        let mut tail = self.tail();
        let fresh = &mut tail.fresh;
        let read = fresh.partition_point(|fresh| fresh.from < from);
        fresh.drain(..read);
        let (mut records, mut next) = (Vec::new(), from);
        while records.len() < most
            && let Some(fresh) = fresh.pop_front_if(|fresh| fresh.from == next)
        {
            records.push(fresh.record);
            next = fresh.next;
        }
        (!records.is_empty()).then_some((records, next))
    }

    /// The folder, and where its last line ends.
    pub(super) fn end(&self) -> Option<(PathBuf, Position)> {
        self.tail().place.as_ref().map(|place| (place.folder.clone(), place.end))
    }

    pub(super) fn imported(&self, count: usize) {
        self.pending.fetch_sub(count as u64, Ordering::Relaxed);
    }

    /// Records that are not in the database yet.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Calls that ended and of which nothing but this process knows.
    pub(super) fn unwritten(&self) -> usize {
        let tail = self.tail();
        tail.waiting.iter().filter(|record| matches!(record, Record::Settled(_))).count()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn lose(&self) {
        // Said once for each thousand, so that a full disk is not filled with this.
        if self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::error!("no room for the calls that wait for the journal; they are lost");
        }
        self.healthy.store(false, Ordering::Relaxed);
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place {
    /// Says where the line begins. After a failure the next one begins a new segment, so that half a
    /// line only ever stands at the end of one.
    fn write(&mut self, line: &[u8]) -> io::Result<Position> {
        if self.end.offset >= self.segment {
            self.file = None;
        }
        let written = match self.file.as_ref() {
            Some(file) => write_once(file, line),
            None => self.begin().and_then(|file| write_once(file, line)),
        };
        let from = self.end;
        match written {
            Ok(()) => self.end.offset += line.len() as u64,
            Err(_) => self.file = None,
        }
        written.map(|()| from)
    }

    fn begin(&mut self) -> io::Result<&File> {
        let segment = self.end.segment + 1;
        let path = path(&self.folder, segment);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.end = Position { segment, offset: 0 };
        Ok(self.file.insert(file))
    }
}

/// Whole or not at all: a disk that takes a part is full.
fn write_once(mut file: &File, line: &[u8]) -> io::Result<()> {
    loop {
        match file.write(line) {
            Ok(count) if count == line.len() => return Ok(()),
            Ok(_) => return Err(ErrorKind::StorageFull.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}

/// The name that lies in a folder, which is made up when there is none.
pub(super) fn node(folder: &Path, new: impl FnOnce() -> String) -> io::Result<String> {
    make(folder)?;
    let path = folder.join("node");
    if !path.exists() {
        // Linked when it is whole, so that of two processes one makes the name and both have it.
        let draft = folder.join(format!("node.{}", std::process::id()));
        std::fs::write(&draft, new())?;
        let linked = std::fs::hard_link(&draft, &path);
        std::fs::remove_file(&draft)?;
        linked.or_else(|error| if path.exists() { Ok(()) } else { Err(error) })?;
    }
    Ok(std::fs::read_to_string(&path)?.trim().to_owned())
}

/// Makes the folder if it is not there, and takes its lock unless another process has it.
pub(super) fn claim(folder: &Path) -> io::Result<Option<File>> {
    make(folder)?;
    let lock = folder.join("lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The segments of a folder, the oldest first.
pub(super) fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}.seg"))
}

/// The lines from `from` on, no further than `end`.
pub(super) fn read(folder: &Path, from: Position, end: Position) -> io::Result<Piece> {
    let is_last = from.segment >= end.segment;
    let (mut bytes, mut is_whole) = (Vec::new(), true);
    match File::open(path(folder, from.segment)) {
        Ok(mut file) => {
            let length = if is_last { end.offset } else { file.metadata()?.len() };
            let room = length.saturating_sub(from.offset);
            file.seek(SeekFrom::Start(from.offset))?;
            file.take(room.min(CHUNK)).read_to_end(&mut bytes)?;
            is_whole = room <= CHUNK;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let cut = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // Half a line at the end of a segment was never said to be written, and no line is as long as
    // a chunk, so neither is waited for.
    let taken = if cut == 0 { bytes.len() } else { cut };
    let (records, lines) = read_lines(bytes.get(..cut).unwrap_or_default());
    let next = if is_whole && !is_last {
        Position { segment: from.segment + 1, offset: 0 }
    } else {
        Position { offset: from.offset + taken as u64, ..from }
    };
    Ok(Piece { records, lines, next })
}

/// What the lines say, backwards, so that it is known of a call that begins whether it ends among
/// them, as most do: of such a one its beginning is not looked at.
fn read_lines(bytes: &[u8]) -> (Vec<Record>, Lines) {
    let (mut records, mut lines) = (Vec::new(), Lines::default());
    let mut ended = HashSet::new();
    for line in bytes.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
        let Some(record) = sound(line) else {
            lines.damaged += 1;
            continue;
        };
        if opened(record).is_some_and(|id| ended.contains(id)) {
            lines.whole += 1;
            continue;
        }
        let Ok(record) = serde_json::from_slice(record) else {
            lines.damaged += 1;
            continue;
        };
        if let Record::Settled(row) = &record {
            ended.insert(row.id.as_bytes().to_vec());
        }
        lines.whole += 1;
        records.push(record);
    }
    records.reverse();
    (records, lines)
}

/// Which call a record says to have begun, as far as that is plain to see.
fn opened(record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(OPEN)?;
    rest.get(..rest.iter().position(|byte| *byte == b'"')?)
}

/// A checksum, the record as JSON, and a line feed, which JSON never has inside.
fn line(record: &Record) -> Option<Vec<u8>> {
    let mut line = Vec::with_capacity(1024);
    line.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut line, record).ok()?;
    let sum = crc32fast::hash(line.get(9..)?);
    write!(line.get_mut(..8)?, "{sum:08x}").ok()?;
    line.push(b'\n');
    (line.len() as u64 <= CHUNK).then_some(line)
}

/// The record of a line as it is written, if every bit of it is.
fn sound(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (sum, record) = line.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.trim_end(), 16).ok()?;
    (crc32fast::hash(record) == sum).then_some(record)
}
