//! An answer's events on their way past guards: what still could become a match is held back, and
//! what was masked in the question is put back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Guarding;
use super::after::Spoken;
use super::notes::Said;
use super::texts::{self, Place};
use crate::canon::{Delta, Event, Finish, FinishReason, Opaque, Opening};
use crate::config::{Action, Stage};
use crate::dialect::passage::{Screen, Stopped};
use crate::guard::{Arguments, Blocked, Chain, Filter, Restorer, Scan, Vault, Verdict};

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) guards: bool,
    pub(super) restores: bool,
}

/// The screen of one answer.
pub(super) struct Sieve {
    /// What is the answer itself, what is said beside it, and what tools are given.
    chains: [Chain; 3],
    wants: Wants,
    /// Nothing may tell the texts again as they were.
    acts: bool,
    vault: Arc<Vault>,
    said: Arc<Said>,
    choices: BTreeMap<u32, Choice>,
    /// What was let out, for those who are asked about it when all of it is.
    spoken: Option<Spoken>,
    /// What the client was told before this answer began, and these guards have not let out yet.
    told: String,
}

#[derive(Default)]
struct Choice {
    lanes: BTreeMap<Kind, Lane>,
    open: Option<Open>,
    finished: bool,
}

/// What one kind of texts passes, one text behind the other.
enum Lane {
    Plain(Pipe),
    Json(Box<Arguments<Pipe>>),
}

/// Makes a piece of a part.
type Piece = fn(String) -> Delta;

type Pipe = (Option<Scan>, Option<Restorer>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Answer,
    Beside,
    Arguments,
    /// Of tools that take free text.
    Free,
}

/// The open part of a choice.
struct Open {
    kind: Kind,
    piece: Piece,
    /// Its state, which comes behind its text.
    opaque: Option<Opaque>,
}

// === impl Wants ===

impl Wants {
    pub(super) const ALL: Self = Self { guards: true, restores: true };
    pub(super) const GUARDS: Self = Self { guards: true, restores: false };
    pub(super) const RESTORES: Self = Self { guards: false, restores: true };
}

// === impl Kind ===

impl Kind {
    fn stage(self) -> Stage {
        match self {
            Self::Answer | Self::Beside => Stage::Output,
            Self::Arguments | Self::Free => Stage::ToolArgs,
        }
    }

    fn chain(self) -> usize {
        match self {
            Self::Answer => 0,
            Self::Beside => 1,
            Self::Arguments | Self::Free => 2,
        }
    }
}

// === impl Sieve ===

impl Sieve {
    pub(super) fn new(guarding: &Guarding, wants: Wants) -> Self {
        let Guarding { output, tool_args, vault, said, .. } = guarding;
        Self {
            chains: [output.clone(), output.beside_answer(), tool_args.clone()],
            acts: output.acts() || tool_args.acts() || !vault.is_empty(),
            wants,
            vault: Arc::clone(vault),
            said: Arc::clone(said),
            choices: BTreeMap::new(),
            spoken: None,
            told: String::new(),
        }
    }

    /// Has what is let out kept there.
    pub(super) fn tells(&mut self, spoken: Spoken) {
        self.spoken = Some(spoken);
    }

    fn lane(&mut self, choice: u32, kind: Kind) -> &mut Lane {
        let Self { chains, wants, vault, choices, .. } = self;
        let chain = &chains[kind.chain()];
        choices.entry(choice).or_default().lanes.entry(kind).or_insert_with(|| {
            let scan = (wants.guards && !chain.is_empty()).then(|| chain.scan(vault));
            let restores = wants.restores && !vault.is_empty();
            let pipe = (scan, restores.then(|| Restorer::new(Arc::clone(vault))));
            match kind {
                Kind::Arguments => Lane::Json(Box::new(Arguments::new(pipe))),
                Kind::Answer | Kind::Beside | Kind::Free => Lane::Plain(pipe),
            }
        })
    }

    fn open(&mut self, choice: u32, part: &Opening, out: &mut Vec<Event>) -> Result<(), Blocked> {
        let (kind, piece): (Kind, Piece) = match part {
            Opening::Text => (Kind::Answer, Delta::Text),
            Opening::Refusal => (Kind::Beside, Delta::Refusal),
            Opening::Reasoning { .. } => (Kind::Beside, Delta::Reasoning),
            Opening::ToolCall { custom: false, .. } => (Kind::Arguments, Delta::Arguments),
            Opening::ToolCall { custom: true, .. } => (Kind::Free, Delta::Arguments),
            Opening::Audio { .. } | Opening::Media(_) | Opening::Foreign(_) => {
                (Kind::Beside, Delta::Transcript)
            }
        };
        if let Some(spoken) = &self.spoken {
            spoken.open((choice, kind.stage()));
        }
        let mut part = part.clone();
        self.look_into(choice, &mut part)?;
        self.choices.entry(choice).or_default().open = Some(Open { kind, piece, opaque: None });
        out.push(Event::Open { choice, part });
        Ok(())
    }

    /// Looks at a part that is whole as it opens.
    fn look_into(&mut self, choice: u32, part: &mut Opening) -> Result<(), Blocked> {
        let lane = self.lane(choice, Kind::Beside);
        let mut visit = |_: Place, text: &mut String| {
            *text = lane.whole(text)?;
            Ok(())
        };
        match part {
            Opening::Media(media) => texts::of_media(media, Stage::Output, &mut visit),
            Opening::Foreign(foreign) => {
                texts::leaves(&mut foreign.value, Place::said(Stage::Output), &mut visit)
            }
            _ => Ok(()),
        }
    }

    fn delta(&mut self, choice: u32, delta: &Delta, out: &mut Vec<Event>) -> Result<(), Blocked> {
        let text = match delta {
            Delta::Text(text)
            | Delta::Refusal(text)
            | Delta::Reasoning(text)
            | Delta::Arguments(text)
            | Delta::Transcript(text) => text,
            Delta::Opaque(opaque) => {
                self.opaque(choice, opaque, out);
                return Ok(());
            }
            Delta::Citation(citation) => {
                let (mut citation, lane) = (citation.clone(), self.lane(choice, Kind::Beside));
                texts::of_citation(&mut citation, Stage::Output, &mut |_, text| {
                    *text = lane.whole(text)?;
                    Ok(())
                })?;
                out.push(Event::Delta { choice, delta: Delta::Citation(citation) });
                return Ok(());
            }
            // They tell the text again.
            Delta::Logprobs(_) if self.acts => return Ok(()),
            Delta::Logprobs(_) | Delta::Audio(_) => {
                out.push(Event::Delta { choice, delta: delta.clone() });
                return Ok(());
            }
        };
        let Some((kind, piece)) = self.open_part(choice) else { return Ok(()) };
        let mut passed = String::new();
        let fed = self.lane(choice, kind).feed(text, &mut passed);
        self.let_out(choice, kind, piece, passed, out);
        fed
    }

    fn open_part(&self, choice: u32) -> Option<(Kind, Piece)> {
        let open = self.choices.get(&choice)?.open.as_ref()?;
        Some((open.kind, open.piece))
    }

    /// The state of a call comes as it opens; that of a text is only right for the text as it was.
    fn opaque(&mut self, choice: u32, opaque: &Opaque, out: &mut Vec<Event>) {
        let open = self.choices.get_mut(&choice).and_then(|choice| choice.open.as_mut());
        match open {
            Some(open) if matches!(open.kind, Kind::Answer | Kind::Beside) => {
                open.opaque = Some(opaque.clone());
            }
            _ => out.push(Event::Delta { choice, delta: Delta::Opaque(opaque.clone()) }),
        }
    }

    fn let_out(
        &mut self,
        choice: u32,
        kind: Kind,
        piece: Piece,
        mut text: String,
        out: &mut Vec<Event>,
    ) {
        if let Some(spoken) = &self.spoken {
            spoken.hear((choice, kind.stage()), &text);
        }
        if choice == 0 && kind == Kind::Answer {
            self.leave_out_told(&mut text);
        }
        if !text.is_empty() {
            out.push(Event::Delta { choice, delta: piece(text) });
        }
    }

    /// What the client has from the stream before is not told twice.
    fn leave_out_told(&mut self, text: &mut String) {
        let same = self.told.bytes().zip(text.bytes()).take_while(|(told, now)| told == now);
        let same = text.floor_char_boundary(same.count());
        if same < self.told.len() && same < text.len() {
            self.told.clear();
            return;
        }
        self.told.drain(..same);
        text.drain(..same);
    }

    fn close(&mut self, choice: u32, out: &mut Vec<Event>) -> Result<(), Blocked> {
        if let Some((kind, piece)) = self.open_part(choice) {
            let lane = self.lane(choice, kind);
            let mut rest = String::new();
            let finished = lane.finish(&mut rest);
            let masked = lane.has_masked();
            self.let_out(choice, kind, piece, rest, out);
            finished?;
            let open = self.choices.get_mut(&choice).and_then(|choice| choice.open.take());
            if let Some(opaque) = open.and_then(|open| open.opaque).filter(|_| !masked) {
                out.push(Event::Delta { choice, delta: Delta::Opaque(opaque) });
            }
        }
        out.push(Event::Close { choice });
        Ok(())
    }

    /// Ends every choice.
    fn end(&mut self, out: &mut Vec<Event>) {
        self.choices.entry(0).or_default();
        for (&number, choice) in &mut self.choices {
            if choice.open.take().is_some() {
                out.push(Event::Close { choice: number });
            }
            if !std::mem::replace(&mut choice.finished, true) {
                let finish = Finish { reason: FinishReason::ContentFilter, ..Finish::default() };
                out.push(Event::Finish { choice: number, finish });
            }
        }
    }
}

impl Screen for Sieve {
    fn pass(&mut self, event: &Event, out: &mut Vec<Event>) -> Result<(), Stopped> {
        let passed = match event {
            Event::Open { choice, part } => self.open(*choice, part, out),
            Event::Delta { choice, delta } => self.delta(*choice, delta, out),
            Event::Close { choice } => self.close(*choice, out),
            Event::Finish { choice, .. } => {
                self.choices.entry(*choice).or_default().finished = true;
                out.push(event.clone());
                Ok(())
            }
            Event::Start(_) | Event::Usage(_) | Event::Failed(_) | Event::Aside(_) | Event::End => {
                out.push(event.clone());
                Ok(())
            }
        };
        passed.map_err(|blocked| {
            self.said.blocks(blocked);
            self.end(out);
            Stopped
        })
    }

    fn stop(&mut self, out: &mut Vec<Event>) {
        self.end(out);
    }

    fn follows(&mut self, said: &str) {
        let before = self.vault.conceal(said);
        let mut out = String::new();
        if let Some(spoken) = &self.spoken {
            spoken.hear((0, Stage::Output), said);
        }
        // It was let out once, and so it is now, up to where it goes on.
        let _ = self.lane(0, Kind::Answer).feed(&before, &mut out);
        said.strip_prefix(out.as_str()).unwrap_or_default().clone_into(&mut self.told);
    }
}

impl Drop for Sieve {
    /// Whatever became of the answer, what was said of it counts.
    fn drop(&mut self) {
        let choices = std::mem::take(&mut self.choices).into_values();
        let lanes = choices.flat_map(|choice| choice.lanes.into_values());
        self.said.gather(lanes.flat_map(Lane::into_verdicts));
    }
}

// === impl Lane ===

impl Lane {
    fn scan(&self) -> Option<&Scan> {
        match self {
            Self::Plain(pipe) => pipe.0.as_ref(),
            Self::Json(arguments) => arguments.inner().0.as_ref(),
        }
    }

    /// Whether something stands in the place of what was there.
    fn has_masked(&self) -> bool {
        let masked = |verdict: &Verdict| {
            verdict.action == Action::Mask && !verdict.dry_run && !verdict.findings.is_empty()
        };
        self.scan().is_some_and(|scan| scan.verdicts().any(masked))
    }

    fn into_verdicts(self) -> Vec<Verdict> {
        let scan = match self {
            Self::Plain(pipe) => pipe.0,
            Self::Json(arguments) => arguments.into_inner().0,
        };
        scan.map(Scan::into_verdicts).unwrap_or_default()
    }
}

impl Filter for Lane {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        match self {
            Self::Plain(pipe) => pipe.feed(piece, out),
            Self::Json(arguments) => arguments.feed(piece, out),
        }
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        match self {
            Self::Plain(pipe) => pipe.finish(out),
            Self::Json(arguments) => arguments.finish(out),
        }
    }
}
