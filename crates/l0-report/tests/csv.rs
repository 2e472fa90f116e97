//! A profile as CSV.

#![cfg(feature = "csv")]

use l0_core::{Cause, End, ErrorRecord, Outcome, Quantity, QuantityKind, Telemetry};
use l0_report::Profile;
use l0_report::csv::write_profile;
use serde_json::json;

#[test]
fn a_profile_is_a_row_per_group() {
    let mut profile = Profile::new().group_by("model");
    let mut telemetry = Telemetry::example();
    profile.add(&telemetry);
    profile.add(&telemetry);
    telemetry
        .metadata
        .insert("model".to_owned(), "=cmd()".into());
    telemetry.outcome = Some(Outcome::Failed);
    telemetry.error = ErrorRecord::of(&End::of(Cause::ZeroOutput));
    telemetry.metrics.time_to_first_token = None;
    profile.add(&telemetry);
    telemetry.outcome = Some(Outcome::Other);
    profile.add(&telemetry);

    let mut written = Vec::new();
    write_profile(&mut written, &profile).expect("CSV");
    let written = String::from_utf8(written).expect("UTF-8");
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).from_reader(written.as_bytes());
    let rows: Vec<_> = reader.records().map(|row| row.expect("a row")).collect();
    let column = |name| {
        let place = rows[0].iter().position(|column| column == name);
        let place = place.unwrap_or_else(|| panic!("no column {name}"));
        [&rows[1][place], &rows[2][place]]
    };
    for (name, expected) in [
        ("group", ["'=cmd()", "gpt-4"]),
        ("runs", ["2", "2"]),
        ("completed", ["0", "2"]),
        ("failed", ["1", "0"]),
        ("timed_out", ["0", "0"]),
        ("other", ["1", "0"]),
        ("networkErrors", ["2", "2"]),
        ("tokens", ["300", "300"]),
        ("wait", ["2980", "2980"]),
        ("violations", ["", ""]),
        ("errorsByType", ["{\"connection_dropped\":2}"; 2]),
        ("failures", ["{\"zero_output\":1}", ""]),
        ("durationMean", ["1500", "1500"]),
        ("durationMax", ["1500", "1500"]),
        ("timeToFirstTokenMax", ["", "250"]),
        ("interTokenTimeMax", ["11", "11"]),
        ("tokensPerSecondMax", ["100", "100"]),
    ] {
        assert_eq!(column(name), expected, "{name}");
    }
    assert_eq!(rows.len(), 3);

    let [reasons, none] = column("reasons");
    assert_eq!(none, "");
    let reasons: serde_json::Value = serde_json::from_str(reasons).expect("JSON");
    let message = &telemetry.error.as_ref().expect("failed").message;
    let expected = json!([{ "errorType": "zero_output", "message": message, "runs": 1 }]);
    assert_eq!(reasons, expected);

    // A column for each outcome, one for unknown outcomes, and the columns of the quantities.
    let quantities = Quantity::ALL.iter().map(|quantity| match quantity.kind {
        QuantityKind::Sum => 1,
        _ => 5,
    });
    let outcomes = Outcome::ALL.len() + 1;
    let by_outcome = 1;
    let columns = 2 + outcomes + quantities.sum::<usize>() - by_outcome + 1;
    assert_eq!(rows[0].len(), columns, "{:?}", rows[0]);
}
