//! Lines of another process, none of which may be as long as it likes.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// What is kept of both ends of a line that is too long.
const EDGE: usize = 64;

/// Reads lines. A read that is given up loses nothing: the next one goes on.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The end of a line that is too long, whose beginning stands in `line`.
    end: Option<Vec<u8>>,
    longest: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Its beginning and its end.
    TooLong(Vec<u8>, Vec<u8>),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, longest: usize) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), end: None, longest }
    }

    /// The next line; `None` when there are no more.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let arrived = self.reader.fill_buf().await.ok()?;
            if arrived.is_empty() {
                return None;
            }
            let found = arrived.iter().position(|byte| *byte == b'\n');
            let taken = found.map_or(arrived.len(), |at| at + 1);
            let more = &arrived[..found.unwrap_or(taken)];
            push(&mut self.line, &mut self.end, more, self.longest);
            self.reader.consume(taken);
            if found.is_some() {
                let line = std::mem::take(&mut self.line);
                return Some(match self.end.take() {
                    Some(end) => Line::TooLong(line, end),
                    None => Line::Whole(line),
                });
            }
        }
    }
}

fn push(line: &mut Vec<u8>, end: &mut Option<Vec<u8>>, more: &[u8], longest: usize) {
    if end.is_none() && line.len() + more.len() <= longest {
        line.extend_from_slice(more);
        return;
    }
    let end = end.get_or_insert_with(|| line[line.len().saturating_sub(EDGE)..].to_vec());
    if line.len() < EDGE {
        line.extend_from_slice(&more[..more.len().min(EDGE - line.len())]);
    }
    line.truncate(EDGE);
    line.shrink_to_fit();
    end.extend_from_slice(&more[more.len().saturating_sub(EDGE)..]);
    end.drain(..end.len().saturating_sub(EDGE));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], longest: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, longest);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_both_ends_are_known() {
        let long = format!("begin{}end", "x".repeat(100_000));
        let read = all(format!("a\n{long}\nb\nrest").as_bytes(), 500).await;
        let [Line::Whole(a), Line::TooLong(begin, end), Line::Whole(b)] = &read[..] else {
            panic!("{read:?}");
        };
        assert_eq!((&a[..], &b[..]), (&b"a"[..], &b"b"[..]));
        assert!(begin.starts_with(b"beginxx") && begin.len() == EDGE);
        assert!(end.ends_with(b"xxend") && end.len() == EDGE);
    }

    #[tokio::test]
    async fn a_line_of_just_the_limit_is_whole() {
        assert_eq!(all(b"12345\n", 5).await, [Line::Whole(b"12345".to_vec())]);
        let [Line::TooLong(begin, end)] = &all(b"123456\n", 5).await[..] else { panic!() };
        assert_eq!((&begin[..], &end[..]), (&b"123456"[..], &b"123456"[..]));
    }
}
