//! Attempts to turn a model against its instructions, told without a model.
//!
//! A text is read once, character by character (`eye`), in constant memory. What is folded and
//! parted into words runs through automata over the words of many languages (`words.tsv`), each of
//! which stands for a class; features are classes that meet (`features`), and what is found within a
//! page of text comes to a score (`watch`).

mod escapes;
mod eye;
mod features;
mod letters;
mod lexicon;
mod runs;
mod watch;
mod words;

use std::sync::Arc;

use super::{Engine, Finding};
use eye::Eye;
use features::Category;
use lexicon::Lexicon;
use watch::Judgement;

struct Reader {
    lexicon: Arc<Lexicon>,
    eye: Eye,
    threshold: u32,
    told: bool,
}

/// A reader that objects from this score on, in thousandths, to attempts of these categories.
pub(super) fn engine(threshold_permille: u32, categories: &[String]) -> Result<Engine, String> {
    let wanted = |category: &Category| categories.iter().any(|name| name == category.name());
    let categories: Vec<Category> = Category::ALL.into_iter().filter(wanted).collect();
    let lexicon = Arc::new(Lexicon::new(&categories)?);
    Ok(Engine::Reader(Box::new(move || Box::new(Reader::new(&lexicon, threshold_permille)))))
}

// === impl Reader ===

impl Reader {
    fn new(lexicon: &Arc<Lexicon>, threshold_permille: u32) -> Self {
        let eye = Eye::new(lexicon);
        // A text in which nothing at all is found is never one to object to.
        let threshold = threshold_permille.max(1);
        Self { lexicon: Arc::clone(lexicon), eye, threshold, told: false }
    }

    /// The first time that the text comes to as much.
    fn object(&mut self) -> Option<Finding> {
        let judgement = self.eye.watch.best;
        if self.told || judgement.permille < self.threshold {
            return None;
        }
        self.told = true;
        Some(finding(&self.lexicon, judgement))
    }
}

impl super::Reader for Reader {
    fn read(&mut self, piece: &str) -> Option<Finding> {
        let mut finding = None;
        for character in piece.chars() {
            if self.told {
                break;
            }
            self.eye.push(character, &self.lexicon);
            finding = self.object();
        }
        finding
    }

    fn end(&mut self) -> Option<Finding> {
        if !self.told {
            self.eye.finish(&self.lexicon);
        }
        let finding = self.object();
        self.eye = Eye::new(&self.lexicon);
        self.told = false;
        finding
    }
}

fn finding(lexicon: &Lexicon, judgement: Judgement) -> Finding {
    let score = f32::from(u16::try_from(judgement.permille).unwrap_or(1000)) / 1000.0;
    Finding {
        label: judgement.category.name().to_owned(),
        score: Some(score),
        reason: Some(lexicon.names(judgement.features).join(", ")),
    }
}

#[cfg(test)]
mod tests;
