//! JSON and CSV read back equal, as far as the format allows, here and with
//! Python's `json` and `csv`.

#![cfg(feature = "csv")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use csv::StringRecord;
use l0_core::{End, ErrorRecord, Failure, Outcome, Quantity, Telemetry, Value as Number};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

/// Returns a cell's text without the apostrophe that protects spreadsheets.
fn text(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

/// Returns the cells of a row by column name, as the `csv` crate reads them.
fn cells(text: &str) -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let mut rows = reader.records().map(|row| row.expect("a row"));
    let row: StringRecord = rows.next().expect("a row");
    assert!(rows.next().is_none());
    header
        .iter()
        .zip(&row)
        .map(|(name, cell)| (name.to_owned(), cell.to_owned()))
        .collect()
}

/// Returns the expected value of each column, taken from the telemetry's JSON and not from its fields.
fn expected(telemetry: &Telemetry) -> Vec<(&'static str, Value)> {
    const PLACES: [(&str, &str); 42] = [
        ("sessionId", "/sessionId"),
        ("duration", "/duration"),
        ("tokens", "/metrics/totalTokens"),
        ("tokensPerSecond", "/metrics/tokensPerSecond"),
        ("retries", "/metrics/totalRetries"),
        ("networkErrors", "/network/errorCount"),
        ("violations", "/guardrails/violationCount"),
        ("startTime", "/startTime"),
        ("outcome", "/outcome"),
        ("finishReason", "/finishReason"),
        ("errorType", "/error/type"),
        ("errorStatus", "/error/status"),
        ("errorMessage", "/error/message"),
        ("kept", "/kept"),
        ("timeToFirstToken", "/metrics/timeToFirstToken"),
        ("timeToFirstText", "/metrics/timeToFirstText"),
        ("avgInterTokenTime", "/metrics/avgInterTokenTime"),
        ("p50InterTokenTime", "/metrics/interToken/p50"),
        ("p90InterTokenTime", "/metrics/interToken/p90"),
        ("p99InterTokenTime", "/metrics/interToken/p99"),
        ("maxInterTokenTime", "/metrics/interToken/max"),
        ("consumerHold", "/metrics/consumerHold"),
        ("wait", "/metrics/wait"),
        ("outputTokensPerSecond", "/metrics/outputTokensPerSecond"),
        ("wastedTokens", "/metrics/wastedTokens"),
        ("attempts", "/metrics/attempts"),
        ("networkRetries", "/metrics/networkRetries"),
        ("modelRetries", "/metrics/modelRetries"),
        ("inputTokens", "/usage/input"),
        ("outputTokens", "/usage/output"),
        ("usageTokens", "/usage/total"),
        ("cachedInputTokens", "/usage/cachedInput"),
        ("cacheWriteInputTokens", "/usage/cacheWriteInput"),
        ("reasoningTokens", "/usage/reasoning"),
        ("wastedInputTokens", "/wastedUsage/input"),
        ("wastedOutputTokens", "/wastedUsage/output"),
        ("errorsByType", "/network/errorsByType"),
        ("violationsByRule", "/guardrails/violationsByRule"),
        ("violationsBySeverity", "/guardrails/violationsBySeverity"),
        ("driftDetected", "/drift/detected"),
        ("driftTypes", "/drift/types"),
        ("metadata", "/metadata"),
    ];
    let json = serde_json::to_value(telemetry).expect("serializes");
    PLACES
        .map(|(column, place)| {
            let missing = if column == "metadata" {
                Value::Object(serde_json::Map::new())
            } else {
                Value::Null
            };
            let mut value = json.pointer(place).cloned();
            // The usage columns contain the billed usage.
            if let Some(count) = place.strip_prefix("/usage/") {
                let usages = [&json["usage"], &json["wastedUsage"]];
                let sum = |counts: &[Option<u64>]| {
                    let counts = counts.iter().copied().flatten();
                    counts.reduce(u64::saturating_add)
                };
                let counts = usages.map(|usage| usage[count].as_u64());
                // Without a total, the sum of the other counts.
                let whole = usages.map(|usage| match usage["total"].as_u64() {
                    None => sum(&["input", "output"].map(|count| usage[count].as_u64())),
                    total => total,
                });
                value = match (count, counts) {
                    ("total", [Some(_), _] | [_, Some(_)]) => sum(&whole),
                    _ => sum(&counts),
                }
                .map(Value::from);
            }
            (column, value.unwrap_or(missing))
        })
        .to_vec()
}

fn check_cell(column: &str, cell: &str, expected: &Value) {
    match expected {
        Value::Null => assert_eq!(cell, "", "{column}"),
        Value::String(expected) => assert_eq!(text(cell), expected, "{column}"),
        expected => {
            let read: Value = serde_json::from_str(cell)
                .unwrap_or_else(|error| panic!("{column}: {error}: {cell}"));
            match (read.as_f64(), expected.as_f64()) {
                (Some(read), Some(expected)) => assert!(read == expected, "{column}: {cell}"),
                _ => assert_eq!(&read, expected, "{column}"),
            }
        }
    }
}

/// Returns the cells of a number.
fn plain(value: Number<'_>) -> Vec<String> {
    let millis = |duration: Duration| (duration.as_nanos() as f64 / 1e6).to_string();
    match value {
        Number::Count(count) => vec![count.to_string()],
        Number::Duration(duration) => vec![millis(duration)],
        Number::Distribution(all) => {
            let known = [all.mean(), all.p50(), all.p90(), all.p99(), Some(all.max())];
            known.into_iter().flatten().map(millis).collect()
        }
        value => vec![value.as_f64().to_string()],
    }
}

fn check_csv(telemetry: &Telemetry) {
    let written = l0_export::csv::to_string(telemetry).expect("CSV");
    let mut cells = cells(&written);
    for cell in cells.values() {
        let first = cell.trim_start().chars().next().unwrap_or_default();
        let is_number = cell.starts_with('-') && cell.parse::<f64>().is_ok();
        assert!(
            is_number || !"=+-@＝＋－＠".contains(first),
            "a spreadsheet runs {cell:?}"
        );
        assert!(!cell.starts_with(['\t', '\r', '\n']), "{cell:?}");
    }
    for (column, value) in expected(telemetry) {
        check_cell(column, &cells.remove(column).expect(column), &value);
    }
    let model = match telemetry.metadata.get("model") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    assert_eq!(text(&cells.remove("model").expect("model")), model);
    let last = telemetry.attempts.last();
    let last = last.and_then(|last| last.model.as_deref());
    let cell = cells.remove("lastModel").expect("lastModel");
    assert_eq!(text(&cell), last.unwrap_or_default());
    // Newer numbers are columns too, with derived names.
    let numbers = Quantity::ALL.iter().filter_map(|q| q.value(telemetry));
    let numbers: Vec<_> = numbers.flat_map(plain).collect();
    for (column, cell) in cells {
        let known = cell.is_empty() || cell.starts_with('{') || numbers.contains(&cell);
        assert!(known, "a column without a check: {column}: {cell}");
    }
}

fn check_json(telemetry: &Telemetry) {
    let mut lines = Vec::new();
    l0_export::json::write_line(&mut lines, telemetry).expect("a line");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
    let read: Vec<_> = l0_export::json::read_lines(&lines[..])
        .map(|telemetry| telemetry.expect("reads"))
        .collect();
    assert_eq!(read.as_slice(), std::slice::from_ref(telemetry));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_telemetry_comes_back_equal_from_json_and_csv(telemetry in support::telemetry()) {
        check_json(&telemetry);
        check_csv(&telemetry);
    }
}

/// Reads both files, and prints the content as JSON.
const READER: &str = r#"
import csv, json, sys
rows = list(csv.reader(open(sys.argv[1], newline="", encoding="utf-8"), strict=True))
lines = [json.loads(line) for line in open(sys.argv[2], newline="\n", encoding="utf-8")]
json.dump({"rows": rows, "lines": lines}, sys.stdout)
"#;

#[test]
fn python_reads_the_same() {
    // Set by the gate, which needs Python anyway.
    let Some(python) = std::env::var_os("L0_PYTHON") else {
        eprintln!("skipped: L0_PYTHON does not name a Python 3");
        return;
    };
    let mut runner = TestRunner::deterministic();
    let sample: Vec<_> = (0..500)
        .map(|_| support::telemetry().new_tree(&mut runner))
        .map(|tree| tree.expect("a telemetry").current())
        .collect();

    let folder = std::env::temp_dir().join(format!("l0-python-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (csv_path, json_path) = (folder.join("sample.csv"), folder.join("sample.jsonl"));
    let mut lines = Vec::new();
    for telemetry in &sample {
        let mut writer = l0_export::csv::Writer::append(&csv_path).expect("a file");
        writer.write(telemetry).expect("a row");
        l0_export::json::write_line(&mut lines, telemetry).expect("a line");
    }
    fs::write(&json_path, &lines).expect("a file");

    let mut child = Command::new(python)
        .args(["-".as_ref(), csv_path.as_os_str(), json_path.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(READER.as_bytes()).expect("Python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success());
    fs::remove_dir_all(&folder).expect("removed");

    let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lines = read["lines"].as_array().expect("lines");
    let rows: Vec<Vec<String>> = serde_json::from_value(read["rows"].clone()).expect("rows");
    assert_eq!((lines.len(), rows.len()), (sample.len(), sample.len() + 1));
    let header = &rows[0];
    for ((telemetry, line), row) in sample.iter().zip(lines).zip(&rows[1..]) {
        let from_json: Telemetry =
            serde_json::from_value(line["telemetry"].clone()).expect("a telemetry");
        assert_eq!(&from_json, telemetry);
        let cells: BTreeMap<_, _> = header.iter().zip(row).collect();
        assert_eq!(row.len(), header.len());
        for (column, value) in expected(telemetry) {
            check_cell(column, cells[&column.to_owned()], &value);
        }
    }
}

#[test]
fn the_original_columns_come_first() {
    let written = l0_export::csv::to_string(&Telemetry::example()).expect("CSV");
    let (header, row) = written.split_once('\n').expect("two lines");
    let original = "sessionId,duration,tokens,tokensPerSecond,retries,networkErrors,violations,";
    assert!(header.starts_with(original), "{header}");
    assert!(
        row.starts_with("l0_1700000000000_0123456789abc,1500,150,100,1,1,,"),
        "{row}"
    );

    let mut unknown = Telemetry::default();
    unknown.session_id = "id".to_owned();
    let written = l0_export::csv::to_string(&unknown).expect("CSV");
    assert!(written.contains("\nid,,0,,0,0,,0,"), "{written}");
}

#[test]
fn the_columns_keep_their_names() {
    let written = l0_export::csv::to_string(&Telemetry::example()).expect("CSV");
    let header = written.lines().next().expect("a header");
    let mut columns = header.split(',');
    // In this order. Newer columns may be in between.
    for name in [
        "sessionId",
        "duration",
        "tokens",
        "tokensPerSecond",
        "retries",
        "networkErrors",
        "violations",
        "startTime",
        "outcome",
        "finishReason",
        "model",
        "errorType",
        "errorStatus",
        "errorMessage",
        "timeToFirstToken",
        "networkRetries",
        "modelRetries",
        "timeToFirstText",
        "avgInterTokenTime",
        "p50InterTokenTime",
        "p90InterTokenTime",
        "p99InterTokenTime",
        "maxInterTokenTime",
        "consumerHold",
        "wait",
        "outputTokensPerSecond",
        "wastedTokens",
        "attempts",
        "inputTokens",
        "outputTokens",
        "usageTokens",
        "cachedInputTokens",
        "cacheWriteInputTokens",
        "reasoningTokens",
        "wastedInputTokens",
        "wastedOutputTokens",
        "errorsByType",
        "violationsBySeverity",
        "violationsByRule",
        "driftDetected",
        "driftTypes",
        "metadata",
    ] {
        assert!(columns.any(|column| column == name), "{name}: {header}");
    }
    assert_eq!(columns.next(), None);
}

#[test]
fn a_failed_run_includes_its_reason() {
    let denied = std::io::Error::other(Failure::status(401));
    let mut telemetry = Telemetry::example();
    telemetry.outcome = Some(Outcome::Failed);
    telemetry.error = ErrorRecord::of(&End::failed(&denied));
    let cells = cells(&l0_export::csv::to_string(&telemetry).expect("CSV"));
    let cells = ["outcome", "errorType", "errorStatus", "errorMessage"].map(|name| &*cells[name]);
    let message = &telemetry.error.as_ref().expect("failed").message;
    assert_eq!(cells, ["failed", "401", "401", message]);
}

#[test]
fn durations_are_exact_to_the_nanosecond() {
    let mut telemetry = Telemetry::example();
    telemetry.duration = Some(Duration::new(8_553_599, 999_999_999));
    let written = l0_export::csv::to_string(&telemetry).expect("CSV");
    assert!(written.contains(",8553599999.999999,"), "{written}");
}
