//! How long budgets and rate limits last, from Bifrost's words to ours.

/// A duration as in `30s`, `5m`, `1h`, `1d`, `1w`, `1M`, `1Y`, as count and unit.
fn parse(text: &str) -> Option<(u64, char)> {
    let unit = text.chars().last()?;
    let count = text.strip_suffix(unit)?.parse().ok().filter(|count| *count > 0)?;
    Some((count, unit))
}

/// The window of a budget.
pub(super) fn window(text: &str) -> Option<String> {
    match parse(text)? {
        (count, unit @ ('m' | 'h' | 'd' | 'w')) => Some(format!("{count}{unit}")),
        (count @ 1..=12, 'M') => Some(format!("{count}mo")),
        (1, 'Q') => Some("3mo".to_owned()),
        (1, 'Y') => Some("12mo".to_owned()),
        _ => None,
    }
}

/// So many in so long, as a pace; whether it is one of exactly that span.
pub(super) fn pace(most: u64, text: &str) -> Option<(String, bool)> {
    let (count, unit) = parse(text)?;
    if !matches!(unit, 's' | 'm' | 'h' | 'd') {
        return None;
    }
    Some((format!("{}/{unit}", (most / count).max(1)), count == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_where_there_are_such_and_told_apart_where_not() {
        assert_eq!(window("1M").as_deref(), Some("1mo"));
        assert_eq!(window("1Y").as_deref(), Some("12mo"));
        assert_eq!(window("30s"), None);
        assert_eq!(pace(100, "1h"), Some(("100/h".to_owned(), true)));
        assert_eq!(pace(100, "5m"), Some(("20/m".to_owned(), false)));
        assert_eq!(pace(100, "1w"), None);
        assert_eq!(pace(100, ""), None);
    }
}
