//! For each bucket of some histograms a call that fell into it, by its trace: what a dashboard shows
//! behind a number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::HistogramVec;
use prometheus::core::Collector as _;

/// The last call of a bucket that left a trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exemplar {
    pub(super) trace: u128,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

/// One for each bucket of one series.
#[derive(Debug)]
pub(super) struct Series {
    bounds: &'static [f64],
    slots: Vec<Mutex<Option<Exemplar>>>,
}

/// By the name of the histogram and the values of its labels. As many as there are series.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<BTreeMap<Key, Arc<Series>>>);

type Key = (String, Vec<String>);

// === impl Series ===

impl Series {
    fn new(bounds: &'static [f64]) -> Self {
        // One more for what is beyond the last bound.
        Self { bounds, slots: (0..=bounds.len()).map(|_| Mutex::default()).collect() }
    }

    /// Keeps this one, unless another is being kept at this moment.
    pub(super) fn keep(&self, trace: u128, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(Ok(mut slot)) = self.slots.get(bucket).map(Mutex::try_lock) {
            *slot = Some(Exemplar { trace, value, at: SystemTime::now() });
        }
    }

    pub(super) fn of_bucket(&self, bucket: usize) -> Option<Exemplar> {
        *self.slots.get(bucket)?.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Exemplars ===

impl Exemplars {
    /// Those of one series, new ones where there are none yet.
    pub(super) fn series(
        &self,
        histogram: &HistogramVec,
        labels: &[&str],
        bounds: &'static [f64],
    ) -> Arc<Series> {
        let name = histogram.desc().first().map(|desc| desc.fq_name.clone()).unwrap_or_default();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((name, labels)).or_insert_with(|| Arc::new(Series::new(bounds))))
    }

    /// Those of a series, if there are any; the values in the order of the declared labels.
    pub(super) fn find(&self, name: &str, labels: &[&str]) -> Option<Arc<Series>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|((known, values), _)| {
            known == name && values.iter().map(String::as_str).eq(labels.iter().copied())
        });
        found.map(|(_, series)| Arc::clone(series))
    }
}
