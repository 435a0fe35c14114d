//! What counts as the same question, what is kept and for how long, and who waits for whom.

mod flights;
mod keys;
mod words;
mod kept;
