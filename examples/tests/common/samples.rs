//! The samples of a Prometheus exposition.

use std::collections::BTreeMap;

/// The labels of a sample, with the name of the metric as `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

/// Samples by their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples(pub(crate) BTreeMap<Labels, f64>);

impl Samples {
    /// Sums all samples with this name and these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is = |sample: &Labels, (label, value): (&str, &str)| {
            sample.get(label).is_some_and(|one| one == value)
        };
        let samples = self.0.iter().filter(|(sample, _)| {
            is(sample, ("__name__", name)) && labels.iter().all(|label| is(sample, *label))
        });
        samples.map(|(_, value)| value).sum()
    }

    /// Adds the values of samples with the same labels.
    pub(crate) fn add(&mut self, other: &Self) {
        for (labels, value) in &other.0 {
            *self.0.entry(labels.clone()).or_default() += value;
        }
    }

    /// Removes the labels that a scraper adds.
    pub(crate) fn without(mut self, added: &[&str]) -> Self {
        let samples = std::mem::take(&mut self.0).into_iter();
        for (mut labels, value) in samples {
            labels.retain(|label, _| !added.contains(&&**label));
            let before = self.0.insert(labels, value);
            assert_eq!(before, None, "two samples differ in {added:?} only");
        }
        self
    }
}

/// Parses the text format for the labels of these tests, whose values have no escape, comma or brace.
pub(crate) fn read(text: &str) -> Samples {
    let mut samples = Samples::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(!line.contains('\\'), "{line}");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, pairs) = match series.split_once('{') {
            Some((name, pairs)) => (name, pairs.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let mut labels = Labels::from([("__name__".to_owned(), name.to_owned())]);
        for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            labels.insert(label.to_owned(), value.trim_matches('"').to_owned());
        }
        let before = samples.0.insert(labels, value.parse().unwrap());
        assert_eq!(before, None, "twice: {line}");
    }
    samples
}
