//! Which languages may be spoken, told by script and frequent groups of letters.
//!
//! Nothing is held for it: a text is judged every `WINDOW` letters, and at its end.

use std::sync::Arc;

use whatlang::{Detector, Lang};

use super::{Finding, Reader};

/// So many letters make a judgement, and so few at the end make none.
const WINDOW: usize = 300;
const LEAST: usize = 40;
/// What stands for an unlisted language has to be this much likelier than its rival.
const CONFIDENCE: f64 = 0.8;

/// ISO 639-1, as people write it, and the code of the crate. Several tongues may share one.
const CODES: &[(&str, &str)] = &[
    ("af", "afr"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tl", "tgl"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zu", "zul"),
];

pub(super) struct Language {
    allowed: Arc<[Lang]>,
    detector: Detector,
    window: String,
    letters: usize,
    told: bool,
}

/// The languages behind the codes.
pub(super) fn allowed(codes: &[String]) -> Result<Arc<[Lang]>, String> {
    let language = |code: &String| {
        let found = CODES.iter().find(|(short, _)| short == code);
        found.and_then(|(_, long)| Lang::from_code(*long)).ok_or_else(|| {
            let known: Vec<&str> = CODES.iter().map(|(short, _)| *short).collect();
            format!("no known language has the code {code:?}; known: {}", known.join(", "))
        })
    };
    codes.iter().map(language).collect()
}

// === impl Language ===

impl Language {
    pub(super) fn new(allowed: &Arc<[Lang]>) -> Self {
        let detector = Detector::default();
        Self {
            allowed: Arc::clone(allowed),
            detector,
            window: String::new(),
            letters: 0,
            told: false,
        }
    }

    fn judge(&mut self) -> Option<Finding> {
        let found = self.detector.detect(&self.window);
        let judged = std::mem::take(&mut self.letters) >= LEAST;
        self.window.clear();
        let found =
            found.filter(|found| judged && !self.told && found.confidence() >= CONFIDENCE)?;
        if self.allowed.contains(&found.lang()) {
            return None;
        }
        // Once is enough where it is only noted.
        self.told = true;
        let code = CODES.iter().find(|(_, long)| *long == found.lang().code());
        let code = code.map_or_else(|| found.lang().code(), |(short, _)| short);
        let reason = Some(format!("the text is in {}", found.lang().eng_name()));
        Some(Finding { label: code.to_owned(), reason, score: None })
    }
}

impl Reader for Language {
    fn read(&mut self, piece: &str) -> Option<Finding> {
        let mut finding = None;
        for character in piece.chars() {
            self.window.push(character);
            self.letters += usize::from(character.is_alphabetic());
            if self.letters == WINDOW {
                let judged = self.judge();
                finding = finding.or(judged);
            }
        }
        finding
    }

    fn end(&mut self) -> Option<Finding> {
        self.judge()
    }
}
