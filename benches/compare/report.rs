//! Medians and tables.

use std::time::Duration;

/// A Markdown table, printed when complete.
pub(crate) struct Table {
    columns: usize,
}

// === impl Table ===

impl Table {
    pub(crate) fn start(columns: &[&str]) -> Self {
        println!("\n| {} |", columns.join(" | "));
        println!("|---|{}", "--:|".repeat(columns.len() - 1));
        Self { columns: columns.len() }
    }

    pub(crate) fn row(&self, cells: &[String]) {
        debug_assert_eq!(cells.len(), self.columns, "a row is as wide as its table");
        println!("| {} |", cells.join(" | "));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

/// The middle value, or the mean of the two middle ones; not a number when there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// The value at a percentile of sorted values.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A number for people: a dash when there is none.
pub(crate) fn show(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}
