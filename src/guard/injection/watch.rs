//! What has been seen of late in one reading of a text, and how bad that is together.

use aho_corasick::automaton::StateID;

use super::features::Category;
use super::lexicon::{Bank, Lexicon};
use super::words::Spelling;

/// What is seen counts together within this many stretches of this length.
const STRETCH: u64 = 256;
const STRETCHES: usize = 5;
/// The position before any.
const NEVER: u64 = 0;
/// Where a text begins, so that what was seen in the one before it is far away.
const APART: u64 = 1 << 20;
/// A feature of so many points is an attack: other features ask for one nearby.
const ATTACK: i32 = 300;

/// What is seen by code rather than by the automata. The first classes of any lexicon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Attack,
    Leet,
    Homoglyphs,
    Spaced,
    Escapes,
    ZeroWidth,
    InvisibleRun,
    Tags,
    Bidi,
    Payload,
    Rot13,
    Reversed,
}

/// Features, one bit each.
pub(super) type Features = u128;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) permille: u32,
    pub(super) features: Features,
    pub(super) category: Category,
}

pub(super) struct Watch {
    position: u64,
    words: StateID,
    marks: StateID,
    last_mark: char,
    /// Letters that were spaced out have come together, perhaps without spaces between words.
    joined: bool,
    /// How many words were known so far.
    known: u64,
    /// Where each class was last seen, by bank.
    seen: Vec<u64>,
    /// What was found in the last stretches, the newest last.
    stretches: [Features; STRETCHES],
    pub(super) best: Judgement,
    #[cfg(test)]
    pub(super) work: u64,
}

/// A watch at work.
pub(super) struct View<'a> {
    pub(super) lexicon: &'a Lexicon,
    pub(super) watch: &'a mut Watch,
}

// === impl Sign ===

impl Sign {
    pub(super) const NAMES: [&str; 12] = [
        "attack",
        "leet",
        "homoglyphs",
        "spaced",
        "escapes",
        "zero_width",
        "invisible_run",
        "tags",
        "bidi",
        "payload",
        "rot13",
        "reversed",
    ];
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(lexicon: &Lexicon) -> Self {
        let mut watch = Self {
            position: APART,
            words: lexicon.words.start,
            marks: lexicon.marks.start,
            last_mark: '\n',
            joined: false,
            known: 0,
            seen: vec![NEVER; lexicon.classes * Bank::SEEN],
            stretches: [0; STRETCHES],
            best: Judgement::default(),
            #[cfg(test)]
            work: 0,
        };
        View { lexicon, watch: &mut watch }.begin();
        watch
    }

    /// A position further, or several. Where a stretch ends, it is judged.
    pub(super) fn advance(&mut self, by: u64, lexicon: &Lexicon) {
        let ended = (self.position + by) / STRETCH > self.position / STRETCH;
        self.position += by;
        if ended {
            self.turn(lexicon);
        }
    }

    /// The newest stretch is over. Speech about attacks may follow them, so what was found in it
    /// counts from the next on.
    fn turn(&mut self, lexicon: &Lexicon) {
        let [older @ .., newest] = self.stretches;
        let found = older.iter().fold(0, |all, one| all | one);
        self.judge(lexicon, found & lexicon.attacks | (found | newest) & !lexicon.attacks);
        self.stretches.rotate_left(1);
        self.stretches[STRETCHES - 1] = 0;
    }

    fn judge(&mut self, lexicon: &Lexicon, found: Features) {
        if found & lexicon.attacks == 0 {
            return;
        }
        let judgement = lexicon.judge(found);
        if judgement.permille > self.best.permille {
            self.best = judgement;
        }
    }

    /// The text is over.
    pub(super) fn finish(&mut self, lexicon: &Lexicon) {
        let found = self.stretches.iter().fold(0, |all, one| all | one);
        self.judge(lexicon, found);
    }

    fn feature(&mut self, lexicon: &Lexicon, feature: usize, bank: Bank) {
        let ready = &lexicon.features[feature];
        if bank != Bank::Plain && ready.points < ATTACK {
            return;
        }
        self.stretches[STRETCHES - 1] |= 1 << feature;
        if ready.points < ATTACK || ready.needs_attack {
            return;
        }
        match bank {
            Bank::Rot13 => self.see(lexicon, Sign::Rot13 as usize, Bank::Plain),
            Bank::Reversed => self.see(lexicon, Sign::Reversed as usize, Bank::Plain),
            Bank::Plain | Bank::Joined => {}
        }
        self.see(lexicon, Sign::Attack as usize, Bank::Plain);
    }

    /// Notes a class where the text stands, and what that completes.
    fn see(&mut self, lexicon: &Lexicon, class: usize, bank: Bank) {
        let offset = lexicon.classes * bank as usize;
        self.seen[offset + class] = self.position;
        for feature in &lexicon.features_of[class] {
            let ready = &lexicon.features[*feature];
            #[cfg(test)]
            {
                self.work += ready.needs.len() as u64;
            }
            let near = |class: &usize| self.seen[offset + class] + ready.within >= self.position;
            if ready.needs.iter().all(|need| need.iter().any(near)) {
                self.feature(lexicon, *feature, bank);
            }
        }
    }
}

// === impl View ===

impl View<'_> {
    /// Forgets what was seen: another text begins.
    pub(super) fn begin(&mut self) {
        self.watch.position += APART;
        self.watch.words = self.lexicon.words.start;
        self.watch.marks = self.lexicon.marks.start;
        self.watch.stretches = [0; STRETCHES];
        self.watch.best = Judgement::default();
        self.watch.last_mark = ' ';
        self.letter(' ');
        self.mark('\n');
    }

    fn word(&mut self, class: usize, bank: Bank) {
        self.watch.known += u64::from(bank == Bank::Plain);
        match bank {
            Bank::Joined if !self.watch.joined => {}
            Bank::Joined => self.watch.see(self.lexicon, class, Bank::Plain),
            _ => self.watch.see(self.lexicon, class, bank),
        }
    }

    /// Any character, signs and spaces included. Spaces in a row are one.
    pub(super) fn mark(&mut self, character: char) {
        let character =
            if character == '\n' || !character.is_whitespace() { character } else { ' ' };
        let last = std::mem::replace(&mut self.watch.last_mark, character);
        if character.is_whitespace() && (last == character || last == '\n') {
            self.watch.last_mark = last;
            return;
        }
        let table = &self.lexicon.marks;
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            self.watch.marks = table.next(self.watch.marks, byte);
            #[cfg(test)]
            {
                self.watch.work += 1;
            }
            for (class, bank) in table.matches(self.watch.marks) {
                self.watch.see(self.lexicon, class, bank);
            }
        }
    }
}

impl Spelling for View<'_> {
    fn letter(&mut self, letter: char) {
        let table = &self.lexicon.words;
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            self.watch.words = table.next(self.watch.words, byte);
            #[cfg(test)]
            {
                self.watch.work += 1;
            }
            for (class, bank) in table.matches(self.watch.words) {
                self.word(class, bank);
            }
        }
    }

    fn sign(&mut self, sign: Sign) {
        self.watch.see(self.lexicon, sign as usize, Bank::Plain);
    }

    fn known(&self) -> u64 {
        self.watch.known
    }

    fn join(&mut self, joined: bool) {
        self.watch.joined = joined;
    }
}
