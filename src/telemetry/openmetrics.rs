//! Writes gathered metrics as OpenMetrics 1.0, which has room for exemplars. The `prometheus` crate
//! writes its own text only, and knows neither exemplars nor native histograms.

use std::fmt::Write as _;
use std::time::SystemTime;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplars::{Exemplar, Exemplars};

const TOTAL: &str = "_total";

/// All families, and the end. `labels` tells the labels of a series in the order of its declaration.
pub(super) fn write(
    families: &[MetricFamily],
    exemplars: &Exemplars,
    labels: &dyn Fn(&str) -> &'static [&'static str],
) -> String {
    let mut text = String::new();
    for family in families {
        let kind = family.get_field_type();
        // A counter's family is called without what each of its samples ends with.
        let name = match kind {
            MetricType::COUNTER => {
                family.name().strip_suffix(TOTAL).unwrap_or_else(|| family.name())
            }
            _ => family.name(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name} {}", kind_name(kind));
        let _ = writeln!(text, "# HELP {name} {}", escaped(family.help()));
        for metric in family.get_metric() {
            let _ = match kind {
                MetricType::COUNTER => {
                    let value = metric.get_counter().get_value();
                    sample(&mut text, &format!("{name}{TOTAL}"), metric, "", value)
                }
                MetricType::HISTOGRAM => {
                    let found = exemplars.find(name, &values(metric, labels(name)));
                    let of_bucket = |bucket| found.as_ref()?.of_bucket(bucket);
                    histogram(&mut text, name, metric, &of_bucket)
                }
                _ => sample(&mut text, name, metric, "", metric.get_gauge().get_value()),
            };
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Gathered labels stand in the order of the alphabet.
fn values<'a>(metric: &'a Metric, declared: &[&str]) -> Vec<&'a str> {
    let find = |name: &&str| metric.get_label().iter().find(|label| label.name() == *name);
    declared.iter().filter_map(find).map(LabelPair::value).collect()
}

fn kind_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "unknown",
    }
}

fn sample(
    text: &mut String,
    name: &str,
    metric: &Metric,
    bound: &str,
    value: f64,
) -> std::fmt::Result {
    head(text, name, metric, bound)?;
    writeln!(text, "{}", number(value))
}

fn histogram(
    text: &mut String,
    name: &str,
    metric: &Metric,
    exemplar: &dyn Fn(usize) -> Option<Exemplar>,
) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let finite = histogram.get_bucket().iter();
    let finite = finite.map(|bucket| (number(bucket.upper_bound()), bucket.cumulative_count()));
    let all = histogram.get_sample_count();
    let buckets = finite.filter(|(bound, _)| bound != "+Inf").chain([("+Inf".to_owned(), all)]);
    let bucket_name = format!("{name}_bucket");
    for (place, (bound, count)) in buckets.enumerate() {
        head(text, &bucket_name, metric, &bound)?;
        write!(text, "{count}")?;
        if let Some(Exemplar { trace, value, at }) = exemplar(place) {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            write!(text, " # {{trace_id=\"{trace:032x}\"}} {} ", number(value))?;
            write!(text, "{:.3}", since.as_secs_f64())?;
        }
        text.push('\n');
    }
    sample(text, &format!("{name}_sum"), metric, "", histogram.get_sample_sum())?;
    head(text, &format!("{name}_count"), metric, "")?;
    writeln!(text, "{all}")
}

/// A sample up to its value. `bound` is the bucket's.
fn head(text: &mut String, name: &str, metric: &Metric, bound: &str) -> std::fmt::Result {
    text.push_str(name);
    let mut before = '{';
    for label in metric.get_label() {
        write!(text, "{before}{}=\"{}\"", label.name(), escaped(label.value()))?;
        before = ',';
    }
    if !bound.is_empty() {
        write!(text, "{before}le=\"{bound}\"")?;
        before = ',';
    }
    text.push_str(if before == ',' { "} " } else { " " });
    Ok(())
}

/// With a fraction always, as OpenMetrics wants bounds to be.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value:?}")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
