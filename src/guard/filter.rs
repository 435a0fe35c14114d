//! The one shape of everything that text passes through piece by piece.

use super::verdict::Blocked;

/// Takes in text in pieces, and gives out what may leave. What comes out in all does not depend on
/// how the text was cut.
pub trait Filter {
    /// Adds to `out` what may leave now.
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked>;

    /// The text is over: adds what was still held. Another text may follow.
    fn finish(&mut self, out: &mut String) -> Result<(), Blocked>;

    /// A text that is there in one piece.
    fn whole(&mut self, text: &str) -> Result<String, Blocked> {
        let mut out = String::with_capacity(text.len());
        self.feed(text, &mut out)?;
        self.finish(&mut out)?;
        Ok(out)
    }
}

/// One behind the other.
impl<First: Filter, Second: Filter> Filter for (First, Second) {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        let mut between = String::new();
        let first = self.0.feed(piece, &mut between);
        self.1.feed(&between, out)?;
        first
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        let mut between = String::new();
        let first = self.0.finish(&mut between);
        self.1.feed(&between, out)?;
        first?;
        self.1.finish(out)
    }
}

impl<Inner: Filter> Filter for Option<Inner> {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        if let Some(inner) = self {
            return inner.feed(piece, out);
        }
        out.push_str(piece);
        Ok(())
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        self.as_mut().map_or(Ok(()), |inner| inner.finish(out))
    }
}

impl<Inner: Filter + ?Sized> Filter for &mut Inner {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        (**self).feed(piece, out)
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        (**self).finish(out)
    }
}
