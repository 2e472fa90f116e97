//! The program, run as a user would.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::path::Path;

use common::{Scratch, run};
use l0_core::{Cause, Cost, CostSource, Currency, End, ErrorRecord, Money, Telemetry};
use l0_export::json::{to_string, write_line};

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

/// Returns the first two cells of each line of the first block, below the line with the time span.
fn cells(table: &str) -> Vec<(&str, &str)> {
    let mut cells = Vec::new();
    let lines = table.lines().skip(2);
    for line in lines.take_while(|line| !line.is_empty()) {
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

/// Returns the lines of the block with this heading, without alignment.
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
fn failure_reasons_are_printed_by_group() {
    let mut input = lines(&["gpt-4", "gpt-4o", "bad", "bad"]);
    // With an outcome of another version, and an error text from another server.
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
    let ran = run(&["--format", "json"], &newer);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["groups"]["all"]["outcomes"]["other"], 1);
    assert_eq!(json["groups"]["all"]["errorsByType"]["other"], 1);
    assert_eq!(json["groups"]["all"]["duration"]["max"], 3.0);
}

#[test]
fn data_is_available_as_json_and_csv() {
    let input = lines(&["gpt-4", "gpt-4", "bad"]);
    let ran = run(&["--format", "json", "--by", "model"], &input);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["groups"]["gpt-4"]["runs"], 2);
    assert_eq!(json["groups"]["gpt-4"]["duration"]["p99"], 1_500.0);
    assert_eq!(json["groups"]["bad"]["outcomes"]["failed"], 1);
    assert_eq!(
        json["groups"]["bad"]["reasons"][0]["errorType"],
        "zero_output"
    );
    assert_eq!(json["groups"]["bad"]["reasons"][0]["runs"], 1);

    let ran = run(&["--format", "csv", "--by", "model"], &input);
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
fn broken_lines_are_reported_with_their_numbers_and_skipped() {
    let mut input = lines(&["gpt-4"]);
    input.extend_from_slice(b"\nnot JSON\r\n{\"telemetry\":{\"sessionId\":1}}\n{}\n\xff\n");
    input.extend_from_slice(to_string(&Telemetry::example()).expect("JSON").as_bytes());
    let file = Scratch::new("broken", &input);
    let ran = run(&[file.path()], b"");
    assert_eq!(ran.code, 3);
    assert_eq!(cells(&ran.out), [("runs", "completed"), ("all", "2")]);
    let reports: Vec<_> = ran.err.lines().collect();
    assert_eq!(reports.len(), 5, "{}", ran.err);
    for (line, number) in reports.iter().zip([3, 4, 5, 6]) {
        let start = format!("l0-report: {}, line {number}", file.path());
        assert!(line.starts_with(&start), "{line}");
    }
    assert!(reports[4].ends_with("4 broken lines skipped, last at line 6"));
    let begins: Vec<_> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let begins: usize = begins[..2].iter().map(|line| line.len()).sum();
    assert!(
        reports[0].ends_with(&format!("line 3 (byte {begins}), column 2: expected ident")),
        "{}",
        reports[0]
    );
}

#[test]
fn an_error_does_not_quote_the_broken_line() {
    let broken = br#"{"telemetry":{"sessionId":"CANARY","startTime":"CANARY"}}"#;
    let input = [&lines(&["gpt-4"])[..], broken].concat();
    for format in ["table", "markdown", "json", "csv"] {
        let ran = run(&["--format", format], &input);
        assert_eq!(ran.code, 3);
        let message = "column 55: invalid type, expected u64\n";
        assert!(ran.err.contains(message), "{}", ran.err);
        assert!(!ran.err.contains("CANARY") && !ran.out.contains("CANARY"));
    }
}

#[test]
fn a_file_in_another_format_does_not_flood_the_terminal() {
    let ran = run(&[], "no JSON\n".repeat(1_000).as_bytes());
    assert_eq!((ran.code, &*ran.out), (2, ""));
    assert_eq!(ran.err.lines().count(), 12);
    assert!(ran.err.ends_with(
        "standard input: 1000 broken lines skipped, last at line 1000\n\
         l0-report: no runs in standard input\n"
    ));
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
fn an_input_without_runs_is_an_error_and_no_table() {
    let empty = Scratch::new("empty", b"\n \n");
    let read = format!("l0-report: no runs in {}", empty.path());
    for (arguments, message) in [
        (&[][..], "l0-report: no runs in standard input\n".to_owned()),
        (&[empty.path()], format!("{read}\n")),
        (&[empty.path(), "-"], format!("{read}, standard input\n")),
    ] {
        let ran = run(arguments, b"");
        assert_eq!((ran.code, &*ran.out), (2, ""), "{arguments:?}");
        assert!(ran.err.starts_with(&message), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    for missing in ["no/such/file", "no/*.jsonl", "["] {
        let ran = run(&[missing], b"");
        assert_eq!((ran.code, &*ran.out), (2, ""));
        let start = format!("l0-report: {missing}: ");
        assert!(ran.err.starts_with(&start), "{}", ran.err);
        assert!(ran.err.ends_with("l0-report: no input could be read\n"));
    }
}

#[test]
fn metadata_cannot_control_the_terminal() {
    let ran = run(&["--by", "model"], &lines(&["\u{1b}[31mred\n"]));
    assert_eq!(ran.code, 0);
    assert!(!ran.out.contains('\u{1b}'));
    assert!(ran.out.contains("\\u{1b}[31mred\\n"), "{}", ran.out);

    let broken = br#"{"telemetry":{"sessionId":"x","startTime":"\u001b[2J\nall fine"}}"#;
    let ran = run(&["no/\u{1b}[2J/\u{202e}file", "-"], broken);
    assert_eq!(ran.code, 2);
    assert!(!ran.err.contains(['\u{1b}', '\u{202e}']));
    assert_eq!(ran.err.lines().count(), 4, "{}", ran.err);
    assert!(ran.err.lines().all(|line| line.starts_with("l0-report: ")));
}

#[test]
fn invalid_arguments_are_rejected_with_a_reason() {
    for (arguments, message) in [
        (&["--format", "xml"][..], "table, markdown, json, csv"),
        (&["--where", "outcome"], "`outcome` is not a condition"),
        (&["--where", "outcome=lost"], "one of completed, truncated"),
        (&["--where", "duration>10"], "a time and its unit"),
        (&["--where", "tenant>3"], "cannot be ordered"),
        (&["--since", "yesterday"], "a date or an RFC 3339 time"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--by", ""], "--by"),
        (&["--by", "model,"], "--by"),
        (&["html", "--by", ""], "--by"),
        (&["compare", "--by", "", "a", "b"], "--by"),
        (&["compare", "--pair-by", "", "a", "b"], "--pair-by"),
    ] {
        let ran = run(arguments, b"");
        assert_eq!((ran.code, &*ran.out), (2, ""), "{arguments:?}");
        assert!(ran.err.contains(message), "{}", ran.err);
    }
}

#[test]
fn help_lists_all_options() {
    let ran = run(&["--help"], b"");
    assert_eq!(ran.code, 0);
    for word in [
        "--by",
        "--where",
        "--since",
        "--until",
        "--ids",
        "--format",
        "standard input",
        "compare",
        "html",
        "timeline",
        "Exit codes",
        "time_to_first_token",
        "retries.total",
    ] {
        assert!(ran.out.contains(word), "{word}: {}", ran.out);
    }
}

#[test]
fn summary_is_the_default_subcommand() {
    let input = lines(&["gpt-4", "bad"]);
    let (short, long) = (
        run(&["--by", "model"], &input),
        run(&["summary", "--by", "model"], &input),
    );
    assert_eq!((short.code, long.code), (0, 0));
    assert_eq!(short.out, long.out);
}

#[test]
fn several_keys_group_by_all_of_them() {
    let mut input = Vec::new();
    for (model, tenant) in [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")] {
        let mut run = Telemetry::example();
        run.metadata.insert("model".to_owned(), model.into());
        run.metadata.insert("tenant".to_owned(), tenant.into());
        run.attempts.clear();
        write_line(&mut input, &run).expect("a line");
    }
    let comma = run(&["--by", "model,tenant", "--format", "csv"], &input);
    let twice = run(
        &["--by", "model", "--by", "tenant", "--format", "csv"],
        &input,
    );
    assert_eq!(comma.out, twice.out);
    let rows: Vec<_> = comma.out.lines().skip(1).collect();
    for (row, start) in rows.iter().zip(["a / x,2,", "a / y,1,", "b / x,1,"]) {
        assert!(row.starts_with(start), "{row}");
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn filters_select_runs_and_the_rest_is_counted() {
    let input = lines(&["gpt-4", "bad", "gpt-4o", "bad"]);
    let ran = run(&["--where", "outcome=failed"], &input);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    assert!(ran.out.starts_with("2 runs of 4, from "), "{}", ran.out);
    let ran = run(
        &["--where", "outcome=failed", "--where", "model!=bad"],
        &input,
    );
    assert_eq!((ran.code, &*ran.err, &*ran.out), (0, "", "0 runs of 4\n"));
    // The runs started in 2023.
    for (arguments, runs) in [
        (["--since", "2023-11-14"], "4 runs,"),
        (["--since", "2023-11-15"], "0 runs of 4\n"),
        (["--until", "2023-11-15T01:00:00+02:00"], "4 runs,"),
        (["--until", "2023-11-14T22:13:20Z"], "0 runs of 4\n"),
    ] {
        let ran = run(&arguments, &input);
        assert!(ran.out.starts_with(runs), "{arguments:?}: {}", ran.out);
    }
}

#[test]
fn the_slowest_runs_are_printed_and_failed_ids_on_request() {
    let mut input = Vec::new();
    for number in 0..30_u64 {
        let mut run = Telemetry::example();
        run.session_id = format!("run-{number:02}");
        run.duration = Some(std::time::Duration::from_millis(100 + number));
        if number % 10 == 0 {
            let end = End::of(Cause::ZeroOutput);
            run.outcome = Some(end.outcome());
            run.error = ErrorRecord::of(&end);
        }
        write_line(&mut input, &run).expect("a line");
    }
    let ran = run(&[], &input);
    assert_eq!(ran.code, 0);
    let slowest = block(&ran.out, "slowest runs");
    assert_eq!(slowest.len(), 11);
    assert_eq!(slowest[0], "slowest runs duration, ms outcome model");
    assert_eq!(slowest[1], "run-29 129 completed gpt-4");
    assert_eq!(slowest[10], "run-20 120 failed gpt-4");
    assert!(!ran.out.contains("failed runs"), "{}", ran.out);
    for heading in ["duration if completed", "duration if failed"] {
        block(&ran.out, heading);
    }

    let ran = run(&["--ids"], &input);
    let failed = block(&ran.out, "failed runs");
    assert_eq!(failed, ["failed runs", "run-00", "run-10", "run-20"]);
    let ran = run(&["--ids", "--format", "json"], &input);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        json["failed"],
        serde_json::json!(["run-00", "run-10", "run-20"])
    );
    assert_eq!(json["slowest"][0]["sessionId"], "run-29");
    assert_eq!(json["slowest"][0]["duration"], 129.0);
    assert_eq!(json["runs"], 30);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("memory");
    packed.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(bytes, level)
}

/// A zstd frame without content.
const SKIPPED: &[u8] = b"\x5a\x2a\x4d\x18\x04\0\0\0\n{}\n";

#[test]
fn compressed_inputs_are_read_like_plain_ones() {
    let models: Vec<_> = (0..3_000)
        .map(|n| if n % 7 == 0 { "bad" } else { "gpt-4" })
        .collect();
    let plain = lines(&models);
    let (left, right) = plain.split_at(plain.len() / 3);
    let expected = run(&["--by", "model"], &plain);
    assert_eq!(expected.code, 0);
    // Concatenated compressed files are one file.
    for packed in [
        gzip(&plain),
        [gzip(left), gzip(right)].concat(),
        zstd(&plain),
        [zstd(left), zstd(right)].concat(),
        // The format of `pzstd`.
        [
            SKIPPED,
            &zstd(left),
            SKIPPED,
            SKIPPED,
            &zstd(right),
            SKIPPED,
        ]
        .concat(),
    ] {
        let ran = run(&["--by", "model"], &packed);
        assert_eq!((ran.code, &*ran.err), (0, ""));
        assert_eq!(ran.out, expected.out);
        // A truncated file is read up to its end.
        let ran = run(&["--by", "model"], &packed[..packed.len() / 2]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains("standard input, line "), "{}", ran.err);
    }
}

#[test]
fn all_whole_blocks_of_a_truncated_frame_are_read() {
    /// The maximum size of a block.
    const BLOCK: usize = 128 * 1024;

    let count = 3_000;
    let plain = lines(&vec!["gpt-4"; count]);
    let length = plain.len() / count;
    assert!(plain.len() > 4 * BLOCK);
    let packed = zstd(&plain);
    let ran = run(&["--format", "json"], &packed[..packed.len() - 10]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.ends_with("unexpected end of file\n"), "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let runs = json["runs"].as_u64().expect("a number") as usize;
    assert!(
        (count - BLOCK / length - 2..count).contains(&runs),
        "{runs}"
    );
}

#[test]
fn patterns_select_files_by_name() {
    let files = [
        Scratch::new("glob-1", &lines(&["a"])),
        Scratch::new("glob-2", &gzip(&lines(&["b"]))),
        Scratch::new("glob-[3]", &lines(&["c"])),
    ];
    let pattern = files[0].path().replace("glob-1", "glob-*");
    let ran = run(&["--by", "model", "--format", "csv", &pattern], b"");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    assert_eq!(ran.out.lines().count(), 4, "{}", ran.out);
    // A file whose name looks like a pattern takes precedence.
    let ran = run(&["--by", "model", "--format", "csv", files[2].path()], b"");
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}

#[test]
fn a_torn_line_is_reported_and_the_others_are_read() {
    let mut input = lines(&["gpt-4", "gpt-4"]);
    input.truncate(input.len() - 40);
    let ran = run(&["--format", "json"], &input);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err.contains("standard input, line 2 (byte "),
        "{}",
        ran.err
    );
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["runs"], 1);
    assert_eq!(json["skipped"][0]["lines"], 1);
    let why = json["skipped"][0]["reasons"][0].as_str().expect("a text");
    assert!(
        why.starts_with("line 2 (byte ") && why.contains("EOF"),
        "{why}"
    );
}

/// Lines of earlier versions.
#[test]
fn records_of_older_versions_are_read() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/older.jsonl");
    let ran = run(&["--by", "model", "--format", "json", file], b"");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["runs"], 3);
    assert_eq!(json["groups"]["gpt-4"]["tokens"], 150);
    assert_eq!(json["groups"]["gpt-4"]["networkRetries"], 1);
    assert_eq!(json["groups"]["(none)"]["runs"], 2);
}

#[test]
fn markdown_has_a_table_for_each_block_with_escaped_names() {
    let ran = run(
        &["--by", "model", "--format", "markdown"],
        &lines(&["<b>|x|*y*", "bad"]),
    );
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let mut lines = ran.out.lines().skip(2);
    assert_eq!(lines.next(), Some("|  | runs | completed | failed |"));
    assert_eq!(lines.next(), Some("|---|---:|---:|---:|"));
    assert_eq!(lines.next(), Some(r"| &lt;b>\|x\|\*y\* | 1 | 1 | 0 |"));
    for line in ran.out.lines().skip(2).filter(|line| !line.is_empty()) {
        assert!(line.starts_with('|') && line.ends_with('|'), "{line}");
    }
}

#[test]
fn markdown_neither_mentions_users_nor_links() {
    let (base, new) = (
        Scratch::new("base", &lines(&["@cf/meta/llama https://l.example"])),
        Scratch::new("new", &lines(&["@cf/meta/llama https://l.example"])),
    );
    for arguments in [
        &["--by", "model", "--format", "markdown", base.path()][..],
        &[
            "compare",
            "--by",
            "model",
            "--format",
            "markdown",
            base.path(),
            new.path(),
        ],
    ] {
        let ran = run(arguments, b"");
        assert_eq!((ran.code, &*ran.err), (0, ""));
        assert!(ran.out.contains("cf/meta/llama"), "{}", ran.out);
        for word in ["@cf", "://"] {
            assert!(!ran.out.contains(word), "{word}: {}", ran.out);
        }
    }
}

#[test]
fn a_report_does_not_overwrite_its_input() {
    let input = lines(&["gpt-4"]);
    let file = Scratch::new("kept", &input);
    let folder = Path::new(file.path()).parent().expect("a folder");
    let again = folder
        .join(".")
        .join(Path::new(file.path()).file_name().expect("a name"));
    let again = again.to_str().expect("UTF-8");
    let pattern = file.path().replace("kept", "kep?");
    for command in ["html", "timeline"] {
        for (input_name, output) in [
            (file.path(), file.path()),
            (file.path(), again),
            (&pattern, file.path()),
        ] {
            let ran = run(&[command, "-", input_name, "-o", output], &input);
            assert_eq!((ran.code, &*ran.out), (2, ""));
            let message = format!("{} is both an input and the output\n", file.path());
            assert!(ran.err.ends_with(&message), "{}", ran.err);
            assert_eq!(std::fs::read(file.path()).expect("a file"), input);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_report_does_not_overwrite_its_input_under_another_name() {
    use std::fs::{File, OpenOptions};
    use std::process::{Command, Stdio};

    let input = lines(&["gpt-4"]);
    let file = Scratch::new("named", &input);
    let links = [Scratch::new("soft", b""), Scratch::new("hard", b"")];
    for link in &links {
        std::fs::remove_file(link.path()).expect("removed");
    }
    std::os::unix::fs::symlink(file.path(), links[0].path()).expect("a link");
    std::fs::hard_link(file.path(), links[1].path()).expect("a link");
    for link in &links {
        let ran = run(&["html", file.path(), "-o", link.path()], b"");
        assert_eq!((ran.code, &*ran.out), (2, ""));
    }
    // Through the shell: `< l0.jsonl -o l0.jsonl`, and `>> l0.jsonl`.
    let append = || {
        let file = OpenOptions::new().append(true).open(file.path());
        Stdio::from(file.expect("a file"))
    };
    let read = || Stdio::from(File::open(file.path()).expect("a file"));
    for (arguments, from, to) in [
        (&["html", "-o", file.path()][..], read(), Stdio::null()),
        (&["--by", "model", file.path()], Stdio::null(), append()),
        (&["compare", file.path(), "-"], Stdio::null(), append()),
        (&["timeline"], read(), append()),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_l0-report"))
            .args(arguments)
            .stdin(from)
            .stdout(to)
            .stderr(Stdio::null())
            .status();
        assert_eq!(ran.expect("starts").code(), Some(2), "{arguments:?}");
        assert_eq!(std::fs::read(file.path()).expect("a file"), input);
    }
}

#[cfg(unix)]
#[test]
fn what_a_pattern_matches_and_cannot_be_read_is_an_error() {
    let (file, link) = (
        Scratch::new("match-1", &lines(&["a"])),
        Scratch::new("match-2", b""),
    );
    std::fs::remove_file(link.path()).expect("removed");
    std::os::unix::fs::symlink("/no/such/file", link.path()).expect("a link");
    let ran = run(&[&file.path().replace("match-1", "match-*")], b"");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains(link.path()), "{}", ran.err);
    assert_eq!(cells(&ran.out), [("runs", "completed"), ("all", "1")]);
}

#[test]
fn one_long_label_does_not_move_the_columns_of_other_tables() {
    let file = Scratch::new(
        &"long".repeat(40),
        &[&lines(&["a"])[..], b"broken\n"].concat(),
    );
    let ran = run(&["--by", "model", file.path()], b"");
    assert_eq!(ran.code, 3);
    let widest = ran
        .out
        .lines()
        .skip(1)
        .find(|line| line.contains("completed"));
    assert!(widest.expect("a heading").len() < 80, "{}", ran.out);
    assert!(ran.out.contains(file.path()), "{}", ran.out);
}

#[test]
fn a_blank_name_is_visible() {
    let input = lines(&["", " "]);
    let ran = run(&["--by", "model"], &input);
    let rows = &cells(&ran.out)[1..];
    assert_eq!(rows[0], ("\"\"", "1"), "{}", ran.out);
    assert!(ran.out.contains("\n\" \" "), "{}", ran.out);
}

#[test]
fn costs_of_a_file_are_summed_exactly_by_currency() {
    let mut lines = Vec::new();
    let mut sums = [Money::ZERO; 3];
    for number in 1..=1_000_u64 {
        let mut telemetry = Telemetry::example();
        // A third of a unit of 10^-18 and more, which floats cannot add exactly.
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
    let ran = run(&["--format", "json"], &lines);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let cost = serde_json::json!({ "USD": { "false": answers, "true": wasted } });
    assert_eq!(json["groups"]["all"]["cost"], cost);
    assert_eq!(
        json["groups"]["all"]["estimatedCost"],
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

    let ran = run(&["--format", "csv"], &lines);
    let row = ran.out.lines().nth(1).expect("a row");
    assert!(row.contains(&answers) && row.contains(&estimated), "{row}");
}
