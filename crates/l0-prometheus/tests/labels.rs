//! Label values: any text reads back unchanged.

mod support;

use l0_core::Telemetry;
use l0_prometheus::{Collector, Labels, Registry};
use proptest::prelude::*;

/// Texts that have broken writers of the format before.
const ODD: [&str; 16] = [
    "",
    "}",
    "{",
    "\"",
    "\\",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{2028}",
    "\u{feff}",
    ",",
    "=",
    "\\n",
    "le=\"0.1\"",
    "🦀",
];

/// Returns a value of unusual pieces, some of 10 kB.
fn value(random: &mut fastrand::Rng) -> String {
    let pieces = if random.u32(..1_000) == 0 {
        10_000
    } else {
        random.usize(..8)
    };
    let piece = |_| match random.u32(..4) {
        0 => random.char(..).to_string(),
        _ => ODD[random.usize(..ODD.len())].to_owned(),
    };
    (0..pieces).map(piece).collect()
}

#[test]
fn a_hundred_thousand_values_read_back_up_to_the_limit() {
    const VALUES: usize = 100_000;
    let registry = Registry::builder().max_series(VALUES).build().unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    // A unique number distinguishes equal values.
    let values: Vec<_> = (0..VALUES).map(|_| value(&mut random)).collect();
    for (index, value) in values.iter().enumerate() {
        let labels = Labels::new([("index", &*index.to_string()), ("value", value)]).unwrap();
        registry
            .inc_counter("values_total", "Values", 1, &labels)
            .unwrap();
    }
    let text = registry.expose();
    let sets = support::read(&text).label_sets("l0_values_total");
    assert_eq!(sets.len(), VALUES);
    for labels in sets {
        let index: usize = labels["index"].parse().unwrap();
        let value = &values[index];
        let cut = (0..=Labels::MAX_VALUE.min(value.len()))
            .rev()
            .find(|at| value.is_char_boundary(*at))
            .unwrap();
        assert!(labels["value"] == value[..cut], "{index}");
    }
    support::check_with_peers(&text);
}

proptest! {
    #[test]
    fn values_of_runs_read_back(
        model in any::<String>(),
        user in any::<String>(),
        service in any::<String>(),
    ) {
        let collector = Collector::builder().label("service", &*service).build().unwrap();
        let labels = Labels::new([("model", &model), ("user", &user)]).unwrap();
        collector.record(&Telemetry::example(), &labels);
        let expected = [("service", &*service), ("model", &*model), ("user", &*user)];
        let read = support::read(&collector.expose());
        prop_assert_eq!(read.get("l0_requests_total", expected), Some(1.0));
        prop_assert_eq!(labels.get("model").unwrap(), model);
        prop_assert_eq!(labels.get("user").unwrap(), user);
    }

    #[test]
    fn the_order_of_labels_makes_no_difference(
        mut pairs in proptest::collection::btree_map("k[a-z0-9_]{0,5}", any::<String>(), 0..5)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())
            .prop_shuffle(),
    ) {
        let shuffled = Labels::new(pairs.clone()).unwrap();
        pairs.sort();
        prop_assert_eq!(&shuffled, &Labels::new(pairs.clone()).unwrap());
        let read: Vec<_> =
            shuffled.iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        prop_assert_eq!(read, pairs);
    }
}
