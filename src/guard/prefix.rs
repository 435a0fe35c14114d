//! What could still become a match: the expression that matches all beginnings of another one's.

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

/// Matches, up to the end of the text, whatever `hir` may still match once more text comes.
///
/// What stands at the very end is not decided yet, so an assertion there counts as met.
pub(super) fn alive(hir: &Hir) -> Hir {
    Hir::concat(vec![prefixes(hir), Hir::look(Look::End)])
}

fn prefixes(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Class(_) => optional(hir.clone()),
        HirKind::Literal(literal) => in_literal(&literal.0),
        HirKind::Capture(capture) => prefixes(&capture.sub),
        HirKind::Alternation(branches) => Hir::alternation(branches.iter().map(prefixes).collect()),
        HirKind::Concat(parts) => parts.iter().rev().fold(Hir::empty(), |rest, part| {
            Hir::alternation(vec![Hir::concat(vec![part.clone(), rest]), prefixes(part)])
        }),
        HirKind::Repetition(repetition) => in_repetition(repetition),
    }
}

/// Some rounds in full, and the beginning of one more.
fn in_repetition(repetition: &Repetition) -> Hir {
    let most = match repetition.max {
        Some(0) => return Hir::empty(),
        Some(most) => Some(most - 1),
        None => None,
    };
    let full = Repetition { min: 0, max: most, greedy: true, sub: repetition.sub.clone() };
    Hir::concat(vec![Hir::repetition(full), prefixes(&repetition.sub)])
}

/// Character by character: a text never ends within one.
fn in_literal(bytes: &[u8]) -> Hir {
    let text = String::from_utf8_lossy(bytes);
    text.chars().rev().fold(Hir::empty(), |rest, character| {
        let first = Hir::literal(character.to_string().into_bytes());
        optional(Hir::concat(vec![first, rest]))
    })
}

fn optional(hir: Hir) -> Hir {
    let sub = Box::new(hir);
    Hir::repetition(Repetition { min: 0, max: Some(1), greedy: true, sub })
}
