//! Costs are summed exactly in the counters.

mod support;

use std::thread;

use l0_core::{Cost, CostSource, Currency, Money, Telemetry};
use l0_prometheus::{Collector, Labels};

/// Amounts of up to 18 decimals, all different.
fn amount(number: u128) -> Money {
    Money::from_steps(number * 12_345_678_901_234_567 % 400_000_000_000_000_003)
}

/// A run with this cost, whose first attempt was wasted.
fn run(number: u128, currency: Currency) -> Telemetry {
    let cost = |number| Cost::new(amount(number), currency, CostSource::PriceList);
    let mut telemetry = Telemetry::example();
    telemetry.attempts[0].cost = Some(cost(number));
    telemetry.attempts[1].cost = Some(cost(number + 1));
    telemetry.attempts[0].estimated_cost = Some(cost(number + 2));
    telemetry.cost = telemetry.attempts[1].cost;
    telemetry
}

#[test]
fn sums_of_many_costs_from_many_threads_are_within_a_billionth_of_the_exact_ones() {
    const RUNS: u128 = 5_000;

    let collector = Collector::builder().build().expect("a collector");
    let labels = Labels::new([("model", "gpt-4")]).expect("labels");
    thread::scope(|scope| {
        for thread in 0..4 {
            let (collector, labels) = (&collector, &labels);
            scope.spawn(move || {
                for number in 0..RUNS {
                    let euros = number % 5 == 0;
                    let currency = if euros { Currency::EUR } else { Currency::USD };
                    collector.record(&run(number * 4 + thread, currency), labels);
                }
            });
        }
    });
    let numbers = (0..RUNS).flat_map(|number| (0..4).map(move |thread| (number, thread)));
    let sum = |euros: bool, plus: u128| {
        let of_currency = numbers
            .clone()
            .filter(|(number, _)| (number % 5 == 0) == euros);
        of_currency
            .map(|(number, thread)| amount(number * 4 + thread + plus))
            .sum::<Money>()
    };
    let text = collector.expose();
    let read = support::read(&text);
    for (code, euros) in [("EUR", true), ("USD", false)] {
        for (wasted, plus) in [("true", 0), ("false", 1)] {
            let labels = [("model", "gpt-4"), ("currency", code), ("wasted", wasted)];
            let sent = read.get("l0_cost_total", labels).expect("a sample");
            let exact = sum(euros, plus).as_f64();
            assert!(
                exact > 100.0 && (sent - exact).abs() < 1e-9,
                "{code} {wasted}: {sent} {exact}"
            );
        }
        let sent = read.get(
            "l0_estimated_cost_total",
            [("model", "gpt-4"), ("currency", code)],
        );
        let exact = sum(euros, 2).as_f64();
        assert!(
            (sent.expect("a sample") - exact).abs() < 1e-9,
            "{code}: {sent:?} {exact}"
        );
    }
    assert_eq!(read.sum("l0_unpriced_runs_total"), 0.0);
}

#[test]
fn runs_without_a_price_are_counted_and_cost_nothing() {
    let collector = Collector::builder().build().expect("a collector");
    let mut telemetry = Telemetry::example();
    telemetry.attempts[1].unpriced = 1;
    for _ in 0..3 {
        collector.record(&telemetry, &Labels::none());
    }
    let read = support::read(&collector.expose());
    assert_eq!(read.sum("l0_unpriced_runs_total"), 3.0);
    assert_eq!(read.label_sets("l0_cost_total").len(), 0);
}
