//! Pieces of text that were found with a score each: the best ones, each once, and placed where a
//! model reads best, at the beginning and the end.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};

use serde_json::Value;

use super::head;

/// So many bytes of a text say hardly anything.
const SHORTEST: usize = 32;
/// What tells how good a piece is, and its text, by the names that search tools use.
const SCORES: [&str; 3] = ["score", "relevance_score", "similarity"];
const TEXTS: [&str; 4] = ["text", "content", "passage", "snippet"];
/// Where a list of pieces stands in an object.
const LISTS: [&str; 6] = ["chunks", "results", "data", "documents", "hits", "matches"];

/// A piece of text that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The higher the better.
    pub score: f64,
    /// What it says: two pieces that say the same are one.
    pub text: String,
    /// As a model is shown it.
    pub shown: String,
}

/// The best pieces that have room in `most` tokens, each once: the best one first, the second one
/// last, and so on to the middle, where models overlook things.
pub fn edges(mut chunks: Vec<Chunk>, most: u64, count: &dyn Fn(&str) -> u64) -> Vec<Chunk> {
    // Among equals the earlier one.
    chunks.sort_by(|one, other| by_score(other, one));
    let (mut seen, mut left) = (HashSet::new(), most);
    let best = chunks.into_iter().filter(|chunk| seen.insert(plain(&chunk.text)));
    let fitting = best.filter(|chunk| {
        let tokens = count(&chunk.shown);
        let fits = tokens <= left;
        left -= if fits { tokens } else { 0 };
        fits
    });
    let (mut first, mut last) = (Vec::new(), VecDeque::new());
    for (rank, chunk) in fitting.enumerate() {
        if rank % 2 == 0 {
            first.push(chunk);
        } else {
            last.push_front(chunk);
        }
    }
    first.extend(last);
    first
}

/// The same for what a search tool says: a JSON list of objects with a score and a text, alone or
/// as a member of an object. Says besides how many pieces are left out. `None` where it is something
/// else.
pub fn of_json(text: &str, most: u64, count: &dyn Fn(&str) -> u64) -> Option<(String, usize)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(_) => LISTS.iter().find_map(|name| value.get(name)?.as_array())?,
        _ => return None,
    };
    let chunks: Option<Vec<Chunk>> = list.iter().map(chunk).collect();
    let mut chunks = chunks?;
    // The commas and brackets are tokens, too.
    let (count, room) = (|text: &str| count(text) + 1, most.saturating_sub(1));
    // Whatever else has no room, the best one is there, if only its beginning.
    let best =
        (0..chunks.len()).rev().max_by(|one, other| by_score(&chunks[*one], &chunks[*other]));
    if let Some(place) = best.filter(|place| count(&chunks[*place].shown) > room)
        && let Some(shorter) = shortened(&list[place], room, &count)
    {
        chunks[place].shown = shorter;
    }
    let different: HashSet<String> = chunks.iter().map(|chunk| plain(&chunk.text)).collect();
    let best = edges(chunks, room, &count);
    let left_out = different.len().saturating_sub(best.len());
    let shown: Vec<String> = best.into_iter().map(|chunk| chunk.shown).collect();
    Some((format!("[{}]", shown.join(",")), left_out))
}

/// What is no number is worst.
fn by_score(one: &Chunk, other: &Chunk) -> Ordering {
    let sure = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    sure(one.score).partial_cmp(&sure(other.score)).unwrap_or(Ordering::Equal)
}

/// A piece with as much of its text as has room; `None` where that is hardly any.
fn shortened(item: &Value, room: u64, count: &dyn Fn(&str) -> u64) -> Option<String> {
    let (name, text) = TEXTS.iter().find_map(|name| Some((name, item.get(name)?.as_str()?)))?;
    let (mut item, mut length) = (item.clone(), text.len());
    while length > SHORTEST {
        length = length * 3 / 4;
        item[*name] = format!("{} […]", head(text, length)).into();
        let shown = item.to_string();
        if count(&shown) <= room {
            return Some(shown);
        }
    }
    None
}

fn chunk(item: &Value) -> Option<Chunk> {
    let score = SCORES.iter().find_map(|name| item.get(name)?.as_f64())?;
    let text = TEXTS.iter().find_map(|name| item.get(name)?.as_str())?;
    Some(Chunk { score, text: text.to_owned(), shown: item.to_string() })
}

/// Without what does not change what a text says.
fn plain(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(scores: &[f64]) -> Vec<Chunk> {
        let chunk = |(place, score): (usize, &f64)| {
            let text = format!("piece {place}");
            Chunk { score: *score, shown: text.clone(), text }
        };
        scores.iter().enumerate().map(chunk).collect()
    }

    fn scores(chunks: &[Chunk]) -> Vec<String> {
        chunks.iter().map(|chunk| chunk.score.to_string()).collect()
    }

    fn words(text: &str) -> u64 {
        text.split_whitespace().count() as u64
    }

    #[test]
    fn the_best_pieces_stand_at_the_beginning_and_the_end() {
        let all = found(&[0.1, 0.9, 0.5, 0.3, 0.8, 0.2, 0.7, 0.4, 0.6, 1.0]);
        let placed = edges(all.clone(), 1000, &words);
        assert_eq!(
            scores(&placed),
            ["1", "0.8", "0.6", "0.4", "0.2", "0.1", "0.3", "0.5", "0.7", "0.9"]
        );
        // Two words each: there is room for the four best ones.
        assert_eq!(scores(&edges(all, 9, &words)), ["1", "0.8", "0.7", "0.9"]);
    }

    #[test]
    fn what_says_the_same_is_shown_once_and_by_its_best() {
        let mut all = found(&[0.2, 0.9, 0.5]);
        all[0].text = "The  Shop opens\nat nine.".to_owned();
        all[1].text = "the shop opens at nine.".to_owned();
        assert_eq!(scores(&edges(all, 1000, &words)), ["0.9", "0.5"]);
    }

    #[test]
    fn a_search_tools_list_is_put_in_order_and_anything_else_is_left_alone() {
        let item = |score: f64, text: &str| json!({"id": text.len(), "score": score, "text": text});
        let list = json!([item(0.1, "c"), item(0.9, "bb"), item(0.5, "aaa")]);
        let placed = |text: &str| of_json(text, 1000, &words).map(|(placed, _)| placed);
        let expected = json!([item(0.9, "bb"), item(0.1, "c"), item(0.5, "aaa")]).to_string();
        assert_eq!(placed(&list.to_string()).as_deref(), Some(expected.as_str()));
        assert_eq!(placed(&json!({"results": list}).to_string()), Some(expected));
        for other in ["[1, 2]", "{}", "not JSON", r#"[{"score": "high", "text": "x"}]"#, "7"] {
            assert_eq!(placed(other), None, "{other}");
        }
    }

    #[test]
    fn of_the_best_piece_at_least_the_beginning_is_shown_and_what_is_left_out_is_counted() {
        let long = "the answer is 42 ".repeat(100);
        let item = |score: f64, text: &str| json!({"score": score, "text": text});
        let bad = "bad ".repeat(40);
        let list = json!([item(0.1, &bad), item(1.0, &long), item(0.2, "worse")]).to_string();
        let (shown, left_out) = of_json(&list, 60, &words).unwrap();
        assert!(words(&shown) <= 60 && shown.contains("the answer is 42"), "{shown}");
        assert!(shown.contains(" […]"), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()[0]["score"], 1.0);
        assert!(left_out >= 1, "{shown}");
        // Nothing is left out of what has room.
        assert_eq!(of_json(&list, 1000, &words).unwrap().1, 0);
    }

    proptest! {
        #[test]
        fn whatever_was_found_fits_and_falls_to_the_middle(
            scores in prop::collection::vec(-1.0..1.0f64, 0..30),
            most in 0u64..80,
        ) {
            let all = found(&scores);
            let placed = edges(all.clone(), most, &words);
            prop_assert!(placed.iter().map(|chunk| words(&chunk.shown)).sum::<u64>() <= most);
            prop_assert!(placed.iter().all(|chunk| all.contains(chunk)));
            let least = placed.iter().map(|chunk| chunk.score).fold(f64::INFINITY, f64::min);
            let bottom = placed.iter().position(|chunk| chunk.score <= least).unwrap_or(0);
            let falls = placed[..placed.len().min(bottom + 1)].windows(2);
            prop_assert!(falls.into_iter().all(|pair| pair[0].score >= pair[1].score));
            prop_assert!(placed[bottom..].windows(2).all(|pair| pair[0].score <= pair[1].score));
            let left_out = all.iter().filter(|chunk| !placed.contains(chunk));
            // All take as much room, so none is left out for a worse one.
            prop_assert!(left_out.into_iter().all(|chunk| chunk.score <= least || placed.is_empty()));
        }
    }
}
