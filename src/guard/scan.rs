//! A text on its way past several guards, in pieces: each sees what those before it have left.

use std::borrow::Cow;
use std::sync::Arc;

use super::filter::Filter;
use super::sieve::{Sieve, Sift, Sink};
use super::vault::Vault;
use super::verdict::{Blocked, Finding, Verdict};
use super::{Engine, Guard, Reader, Replace};
use crate::config::{Action, Stage};

/// The local guards of one surface of a call, and what they have said so far. One is made for each
/// text that comes in pieces; texts that are there whole may follow each other in one.
pub struct Scan {
    links: Vec<Link>,
    vault: Arc<Vault>,
}

struct Link {
    guard: Arc<Guard>,
    state: State,
    verdict: Verdict,
}

enum State {
    Sift(Sift),
    Reader(Box<dyn Reader>),
    /// Of a guard that can only judge the whole.
    Whole(String),
}

/// Where a sieve's findings go.
struct Deeds<'a> {
    guard: &'a Guard,
    vault: &'a Vault,
    verdict: &'a mut Verdict,
    /// Absent where the text has left already.
    out: Option<&'a mut String>,
    blocked: Option<Blocked>,
}

// === impl Scan ===

impl Scan {
    pub(super) fn new(guards: &[Arc<Guard>], stage: Stage, vault: Arc<Vault>) -> Self {
        let links = guards.iter().filter_map(|guard| Link::new(guard, stage)).collect();
        Self { links, vault }
    }

    /// What each guard has said so far.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.links.iter().map(|link| &link.verdict)
    }

    pub fn into_verdicts(self) -> Vec<Verdict> {
        self.links.into_iter().map(|link| link.verdict).collect()
    }

    fn run(&mut self, piece: &str, ends: bool, out: &mut String) -> Result<(), Blocked> {
        let mut text = Cow::Borrowed(piece);
        for link in &mut self.links {
            let mut next = String::with_capacity(text.len());
            link.feed(&text, &self.vault, &mut next)?;
            if ends {
                link.finish(&self.vault, &mut next)?;
            }
            text = Cow::Owned(next);
        }
        out.push_str(&text);
        Ok(())
    }
}

impl Filter for Scan {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        self.run(piece, false, out)
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        self.run("", true, out)
    }
}

// === impl Link ===

impl Link {
    /// Nothing for a guard that asks somebody else: that takes more than a text.
    fn new(guard: &Arc<Guard>, surface: Stage) -> Option<Self> {
        let state = match &guard.engine {
            Engine::Sieve(..) => State::Sift(Sift::default()),
            Engine::Reader(open) => State::Reader(open()),
            Engine::Schema(_) => State::Whole(String::new()),
            Engine::Remote(_) => return None,
        };
        Some(Self { guard: Arc::clone(guard), state, verdict: guard.silence(surface) })
    }

    fn feed(&mut self, piece: &str, vault: &Vault, out: &mut String) -> Result<(), Blocked> {
        self.verdict.scanned_bytes += piece.len() as u64;
        match (&mut self.state, &self.guard.engine) {
            (State::Sift(sift), Engine::Sieve(sieve, _)) => {
                let verdict = &mut self.verdict;
                sifted(&self.guard, vault, verdict, sift, sieve, Some(piece), out)
            }
            (State::Reader(reader), _) => {
                let finding = reader.read(piece);
                out.push_str(piece);
                self.object(finding)
            }
            (State::Whole(held), _) => {
                held.push_str(piece);
                if !self.verdict.acts() {
                    out.push_str(piece);
                }
                Ok(())
            }
            (State::Sift(_), _) => Ok(()),
        }
    }

    fn finish(&mut self, vault: &Vault, out: &mut String) -> Result<(), Blocked> {
        match (&mut self.state, &self.guard.engine) {
            (State::Sift(sift), Engine::Sieve(sieve, _)) => {
                let verdict = &mut self.verdict;
                sifted(&self.guard, vault, verdict, sift, sieve, None, out)
            }
            (State::Reader(reader), _) => {
                let finding = reader.end();
                self.object(finding)
            }
            (State::Whole(held), Engine::Schema(schema)) => {
                let held = std::mem::take(held);
                let finding = schema.object(&held);
                if self.verdict.acts() {
                    out.push_str(&held);
                }
                self.object(finding)
            }
            (State::Sift(_) | State::Whole(_), _) => Ok(()),
        }
    }

    fn object(&mut self, finding: Option<Finding>) -> Result<(), Blocked> {
        let Some(finding) = finding else { return Ok(()) };
        let label = finding.label.clone();
        self.verdict.note(finding);
        if self.verdict.acts() { Err(self.guard.blocks(label)) } else { Ok(()) }
    }
}

/// A piece, or the end of the text, through a sieve. Where findings are only noted, the text does
/// not wait for them.
fn sifted(
    guard: &Guard,
    vault: &Vault,
    verdict: &mut Verdict,
    sift: &mut Sift,
    sieve: &Sieve,
    piece: Option<&str>,
    out: &mut String,
) -> Result<(), Blocked> {
    let acts = verdict.acts();
    if !acts {
        out.push_str(piece.unwrap_or_default());
    }
    let out = acts.then_some(out);
    let mut deeds = Deeds { guard, vault, verdict, out, blocked: None };
    match piece {
        Some(piece) => sift.feed(sieve, piece, &mut deeds),
        None => sift.finish(sieve, &mut deeds),
    };
    deeds.blocked.map_or(Ok(()), Err)
}

impl Sink for Deeds<'_> {
    fn pass(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            out.push_str(text);
        }
    }

    fn found(&mut self, label: &str, value: &str) -> bool {
        self.verdict.note(Finding { label: label.to_owned(), ..Finding::default() });
        let Some(out) = &mut self.out else { return true };
        if self.guard.action == Action::Block {
            self.blocked = Some(self.guard.blocks(label.to_owned()));
            return false;
        }
        let restores =
            self.guard.restore && matches!(self.verdict.stage, Stage::Input | Stage::ToolResults);
        match self.guard.engine {
            Engine::Sieve(_, Replace::With(text)) => out.push_str(text),
            _ => out.push_str(&self.vault.placeholder(label, value, restores)),
        }
        true
    }
}
