//! The program as its users run it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use l0_core::{Cause, Cost, CostSource, Currency, End, ErrorRecord, Money, Telemetry};
use l0_export::json::{to_string, write_line};

/// What the program did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_l0-report"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let output: Output = thread::scope(|scope| {
        scope.spawn(move || {
            // It may have ended without reading.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("ends")
    });
    Ran {
        code: output.status.code().expect("a code"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A file that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let file = format!("l0-report-{}-{name}.jsonl", std::process::id());
        let path = std::env::temp_dir().join(file);
        fs::write(&path, content).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn lines(models: &[&str]) -> Vec<u8> {
    let mut lines = Vec::new();
    for model in models {
        let mut telemetry = Telemetry::example();
        telemetry
            .metadata
            .insert("model".to_owned(), (*model).into());
        if *model == "bad" {
            let end = End::of(Cause::ZeroOutput);
            telemetry.outcome = Some(end.outcome());
            telemetry.error = ErrorRecord::of(&end);
        }
        write_line(&mut lines, &telemetry).expect("a line");
    }
    lines
}

/// The first two cells of each line.
fn cells(table: &str) -> Vec<(&str, &str)> {
    let mut cells = Vec::new();
    for line in table.lines().take_while(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        cells.push((words.next().unwrap_or(""), words.next().unwrap_or("")));
    }
    cells
}

#[test]
fn standard_input_is_profiled_as_one_group() {
    for arguments in [&[][..], &["-"]] {
        let ran = run(arguments, &lines(&["gpt-4", "gpt-4o"]));
        assert_eq!((ran.code, &*ran.err), (0, ""));
        assert_eq!(cells(&ran.out), [("runs", "completed"), ("all", "2")]);
        for heading in [
            "duration, ms",
            "time to first token, ms",
            "inter token time, ms",
        ] {
            assert!(ran.out.contains(heading), "{}", ran.out);
        }
        assert!(ran.out.contains('█'), "{}", ran.out);
    }
}

#[test]
fn files_are_profiled_together_by_a_key() {
    let (one, two) = (
        Scratch::new("one", &lines(&["gpt-4", "bad"])),
        Scratch::new("two", &lines(&["gpt-4", "gpt-4"])),
    );
    let ran = run(&["--by", "model", one.path(), two.path()], b"");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    assert_eq!(
        cells(&ran.out),
        [
            ("runs", "completed"),
            ("bad", "1"),
            ("gpt-4", "3"),
            ("(all)", "4")
        ]
    );
}

/// The lines of the block that this word heads, without what aligns them.
fn block(table: &str, heading: &str) -> Vec<String> {
    let mut blocks = table.split("\n\n").map(|block| {
        let lines = block.trim_end().lines();
        let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>()
    });
    let found = blocks.find(|block| block[0].starts_with(heading));
    found.unwrap_or_else(|| panic!("no {heading}: {table}"))
}

#[test]
fn it_says_why_runs_failed_by_group() {
    let mut input = lines(&["gpt-4", "gpt-4o", "bad", "bad"]);
    // As another version wrote it, and with an error's text as somebody else's server wrote it.
    input.extend_from_slice(
        br#"{"telemetry":{"sessionId":"1","outcome":"failed","metadata":{"model":"gpt-4"},
        "error":{"type":"quantum_loss","status":599,"message":"gone \u001b[2J\n"},"more":{}}}"#
            .split(|byte| *byte == b'\n')
            .collect::<Vec<_>>()
            .concat()
            .as_slice(),
    );
    let ran = run(&["--by", "model"], &input);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let empty = End::of(Cause::ZeroOutput);
    let empty = format!("zero_output: {}", empty.message().expect("there"));
    let gone = r"quantum_loss: gone \u{1b}[2J\n";
    assert_eq!(
        block(&ran.out, "failures"),
        [
            "failures runs reason".to_owned(),
            format!("bad 2 {empty}"),
            format!("gpt-4 1 {gone}"),
            format!("(all) 2 {empty}"),
            format!("(all) 1 {gone}"),
        ]
    );
    let totals = block(&ran.out, "totals");
    assert!(totals[0].starts_with("totals tokens "), "{totals:?}");
    assert_eq!(totals.len(), 5);

    let fine = run(&["--by", "model"], &lines(&["gpt-4"]));
    assert!(!fine.out.contains("failures"), "{}", fine.out);
}

#[test]
fn a_record_of_a_newer_version_is_not_broken() {
    let newer = br#"{"schema":9,"telemetry":{"sessionId":"1","outcome":"evaporated","duration":3,
        "network":{"errorCount":1,"errorsByType":{"worm_hole":1}},"insights":[]}}"#;
    let newer: Vec<u8> = newer
        .iter()
        .copied()
        .filter(|byte| *byte != b'\n')
        .collect();
    let ran = run(&["--json"], &newer);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["all"]["outcomes"]["other"], 1);
    assert_eq!(json["all"]["errorsByType"]["other"], 1);
    assert_eq!(json["all"]["duration"]["max"], 3.0);
}

#[test]
fn data_comes_as_json_and_as_csv() {
    let input = lines(&["gpt-4", "gpt-4", "bad"]);
    let ran = run(&["--json", "--by", "model"], &input);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["gpt-4"]["runs"], 2);
    assert_eq!(json["gpt-4"]["duration"]["p99"], 1_500.0);
    assert_eq!(json["bad"]["outcomes"]["failed"], 1);
    assert_eq!(json["bad"]["reasons"][0]["errorType"], "zero_output");
    assert_eq!(json["bad"]["reasons"][0]["runs"], 1);

    let ran = run(&["--csv", "--by", "model"], &input);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let rows: Vec<_> = ran.out.lines().collect();
    assert!(rows[0].starts_with("group,runs,completed,truncated,failed,"));
    assert!(rows[0].ends_with(",reasons"));
    assert!(rows[1].starts_with("bad,1,0,0,1,"));
    assert!(rows[1].contains(r#"[{""errorType"":""zero_output"","#));
    assert!(rows[2].starts_with("gpt-4,2,2,0,0,"));
    assert_eq!(rows.len(), 3);
}

#[test]
fn broken_lines_are_told_with_their_numbers_and_skipped() {
    let mut input = lines(&["gpt-4"]);
    input.extend_from_slice(b"\nnot JSON\r\n{\"telemetry\":{\"sessionId\":1}}\n{}\n\xff\n");
    input.extend_from_slice(to_string(&Telemetry::example()).expect("JSON").as_bytes());
    let file = Scratch::new("broken", &input);
    let ran = run(&[file.path()], b"");
    assert_eq!(ran.code, 1);
    assert_eq!(cells(&ran.out), [("runs", "completed"), ("all", "2")]);
    let told: Vec<_> = ran.err.lines().collect();
    assert_eq!(told.len(), 5, "{}", ran.err);
    for (line, number) in told.iter().zip([3, 4, 5, 6]) {
        let start = format!("l0-report: {}, line {number}", file.path());
        assert!(line.starts_with(&start), "{line}");
    }
    assert!(told[4].ends_with("4 broken lines skipped, the last is line 6"));
    let begins: Vec<_> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let begins: usize = begins[..2].iter().map(|line| line.len()).sum();
    assert!(
        told[0].ends_with(&format!("line 3 (byte {begins}), column 2: expected ident")),
        "{}",
        told[0]
    );
}

#[test]
fn what_is_said_of_a_broken_line_quotes_none_of_it() {
    let broken = br#"{"telemetry":{"sessionId":"CANARY","startTime":"CANARY"}}"#;
    let ran = run(&[], broken);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("standard input, line 1 (byte 0), column 55: invalid type, expected u64\n"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("CANARY"));
}

#[test]
fn a_file_of_something_else_does_not_flood_the_terminal() {
    let ran = run(&[], "no JSON\n".repeat(1_000).as_bytes());
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err.lines().count(), 11);
    assert!(
        ran.err
            .ends_with("standard input: 1000 broken lines skipped, the last is line 1000\n")
    );
}

#[test]
fn an_input_that_cannot_be_read_does_not_hide_the_others() {
    let file = Scratch::new("good", &lines(&["gpt-4"]));
    let folder = std::env::temp_dir();
    for missing in [Path::new("no/such/file"), &folder] {
        let missing = missing.to_str().expect("UTF-8");
        let ran = run(&[missing, file.path()], b"");
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains(missing), "{}", ran.err);
        assert_eq!(cells(&ran.out), [("runs", "completed"), ("all", "1")]);
    }
}

#[test]
fn no_runs_are_an_empty_table() {
    let ran = run(&[], b"");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    assert_eq!(ran.out, "          runs\n(all)        0\n");
}

#[test]
fn metadata_cannot_steer_the_terminal() {
    let ran = run(&["--by", "model"], &lines(&["\u{1b}[31mred\n"]));
    assert_eq!(ran.code, 0);
    assert!(!ran.out.contains('\u{1b}'));
    assert!(ran.out.contains("\\u{1b}[31mred\\n"), "{}", ran.out);

    let broken = br#"{"telemetry":{"sessionId":"x","startTime":"\u001b[2J\nall fine"}}"#;
    let ran = run(&["no/\u{1b}[2J/file", "-"], broken);
    assert_eq!(ran.code, 2);
    assert!(!ran.err.contains('\u{1b}'));
    assert_eq!(ran.err.lines().count(), 3, "{}", ran.err);
    assert!(ran.err.lines().all(|line| line.starts_with("l0-report: ")));
}

#[test]
fn arguments_that_contradict_are_refused_and_help_is_given() {
    let ran = run(&["--json", "--csv"], b"");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--json") && ran.err.contains("--csv"));
    let ran = run(&["--help"], b"");
    assert_eq!(ran.code, 0);
    for word in ["--by", "--json", "--csv", "standard input"] {
        assert!(ran.out.contains(word), "{}", ran.out);
    }
}

#[test]
fn costs_of_a_file_are_summed_exactly_by_currency() {
    let mut lines = Vec::new();
    let mut sums = [Money::ZERO; 3];
    for number in 1..=1_000_u64 {
        let mut telemetry = Telemetry::example();
        // A third of 10^-18 units and more: no float adds these up.
        let amount =
            |plus: u64| Money::from_steps(333_333_333_333_333_333 + u128::from(number + plus));
        let cost = |plus| {
            Some(Cost::new(
                amount(plus),
                Currency::USD,
                CostSource::PriceList,
            ))
        };
        telemetry.attempts[0].cost = cost(1);
        telemetry.attempts[1].cost = cost(2);
        telemetry.attempts[0].estimated_cost = cost(3);
        telemetry.cost = telemetry.attempts[1].cost;
        for (sum, plus) in sums.iter_mut().zip([1, 2, 3]) {
            *sum += amount(plus);
        }
        write_line(&mut lines, &telemetry).expect("written");
    }
    let [wasted, answers, estimated] = sums.map(|sum| sum.to_string());
    let ran = run(&["--json"], &lines);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let cost = serde_json::json!({ "USD": { "false": answers, "true": wasted } });
    assert_eq!(json["all"]["cost"], cost);
    assert_eq!(
        json["all"]["estimatedCost"],
        serde_json::json!({ "USD": estimated })
    );

    let ran = run(&[], &lines);
    let spent = (sums[0] + sums[1]).to_string();
    let mut rows = ran.out.lines().skip_while(|line| !line.starts_with("USD "));
    let heading: Vec<_> = rows.next().expect("a block").split_whitespace().collect();
    let expected = "USD cost wasted estimated per 1,000 runs per completed";
    assert_eq!(heading.join(" "), expected);
    let row: Vec<_> = rows.next().expect("a row").split_whitespace().collect();
    let expected = ["all", &spent, &wasted, &estimated, "667", "0.667"];
    assert_eq!(row, expected, "{}", ran.out);

    let ran = run(&["--csv"], &lines);
    let row = ran.out.lines().nth(1).expect("a row");
    assert!(row.contains(&answers) && row.contains(&estimated), "{row}");
}
