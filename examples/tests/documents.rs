//! Checks the documents: their links, and their lists of pages, fields and examples.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use l0_core::testing::Script;
use l0_core::{
    Cost, CostSource, Currency, DriftStats, End, ErrorRecord, Failure, GuardrailStats, L0, Money,
    Telemetry, Usage,
};
use l0_prometheus::Collector;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names of the files in a folder with this suffix, without the suffix.
fn names(folder: &str, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names
        .filter_map(|name| name.strip_suffix(end).map(str::to_owned))
        .collect()
}

/// Returns the pages of the guide and the documents of the repository.
fn documents() -> Vec<PathBuf> {
    let pages = names("docs", ".md").into_iter();
    let pages = pages.map(|name| root().join("docs").join(format!("{name}.md")));
    let repository = names("", ".md").into_iter();
    let repository = repository.map(|name| root().join(format!("{name}.md")));
    [root().join("examples/README.md")]
        .into_iter()
        .chain(repository)
        .chain(pages)
        .collect()
}

/// Returns the lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Removes the text between backticks from a line.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Returns the targets of the links and pictures of a document.
fn links(text: &str) -> Vec<String> {
    // A link can span two lines.
    let prose: Vec<_> = prose(text).map(without_code).collect();
    let prose = prose.join("\n");
    let ends = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
    ends.filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// Returns the anchors of the headings, as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, u32>::new();
    let headings = prose(text).filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings
        .map(|heading| {
            let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
            let slug: String = heading.trim().to_lowercase().chars().filter(kept).collect();
            let slug = slug.replace(' ', "-");
            let times = seen.entry(slug.clone()).or_default();
            *times += 1;
            match *times {
                1 => slug,
                times => format!("{slug}-{}", times - 1),
            }
        })
        .collect()
}

#[test]
fn links_have_targets() {
    let mut count = 0;
    let mut dead = Vec::new();
    for document in documents() {
        for link in links(&read(&document)) {
            if link.starts_with("https://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => document.clone(),
                file => document.parent().expect("a folder").join(file),
            };
            let there =
                target.exists() && (anchor.is_empty() || anchors(&read(&target)).contains(anchor));
            if !there {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count > 200, "{count}");
}

#[test]
fn the_contents_name_every_page() {
    let contents = links(&read(&root().join("docs/README.md")));
    let contents: BTreeSet<_> = contents
        .iter()
        .filter_map(|link| link.strip_suffix(".md"))
        .map(str::to_owned)
        .collect();
    for page in names("docs", ".md") {
        assert!(page == "README" || contents.contains(&page), "{page}");
    }
}

#[test]
fn the_contents_of_a_page_name_its_sections() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = read(&document);
        let (head, _) = text.split_once("\n## ").unwrap_or((&text, ""));
        let listed = links(head).into_iter();
        let listed: BTreeSet<_> = listed.filter(|link| link.starts_with('#')).collect();
        if listed.is_empty() {
            continue; // a page without a list of contents
        }
        let sections: String = prose(&text)
            .filter(|line| line.starts_with("## "))
            .flat_map(|line| [line, "\n"])
            .collect();
        for section in anchors(&sections) {
            if !listed.contains(&format!("#{section}")) {
                missing.push(format!("{}: {section}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_code_of_every_page_is_compiled() {
    let compiled = read(&root().join("examples/src/lib.rs"));
    for page in names("docs", ".md") {
        let has_code = read(&root().join(format!("docs/{page}.md"))).contains("```rust");
        let is_compiled = compiled.contains(&format!("docs/{page}.md"));
        assert!(!has_code || is_compiled, "{page}");
    }
}

#[test]
fn pages_show_their_programs_as_they_are() {
    for (page, program, maximum) in [("web-service", "server", 119), ("shutdown", "drain", 149)] {
        let page = read(&root().join(format!("docs/{page}.md")));
        let program = read(&root().join(format!("examples/src/bin/{program}.rs")));
        assert!(page.contains(&format!("```rust,ignore\n{program}```\n")));
        let lines = program.lines().count();
        assert!(lines <= maximum, "{lines}");
        assert!(page.contains(&format!("in one file of {lines} lines")));
    }
}

#[test]
fn the_table_of_features_names_every_feature_and_no_other() {
    let page = read(&root().join("docs/configuration.md"));
    let (_, table) = page.split_once("\n## Features\n").expect("a section");
    let code = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let mut listed = BTreeSet::new();
    let mut name = String::new();
    for row in table.lines().filter(|line| line.contains('`')) {
        let mut cells = row.split('|').skip(1);
        if let Some(crate_name) = code(cells.next().unwrap_or_default()).pop() {
            name = crate_name;
        }
        let features = code(cells.next().unwrap_or_default()).into_iter();
        listed.extend(features.map(|feature| (name.clone(), feature)));
    }

    let mut features = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).expect("a folder") {
        let folder = entry.expect("an entry");
        let manifest = read(&folder.path().join("Cargo.toml"));
        let (_, rest) = manifest.split_once("\n[features]\n").unwrap_or_default();
        let rest = rest.split("\n[").next().unwrap_or_default();
        let lines = rest.lines().filter_map(|line| line.split_once(" = "));
        let names = lines.filter(|(name, _)| *name != "default");
        let crate_name = folder.file_name().into_string().expect("UTF-8");
        features.extend(names.map(|(name, _)| (crate_name.clone(), name.to_owned())));
    }
    assert_eq!(listed, features);
}

#[test]
fn the_lines_to_add_are_compiled() {
    let page = read(&root().join("docs/with-what-you-have.md"));
    let compiled: Vec<_> = page.split("\n```rust").skip(1).collect();
    let compiled: Vec<_> = compiled
        .iter()
        .filter_map(|block| block.split("\n```").next())
        .collect();
    let mut count = 0;
    let rows = prose(&page).filter(|line| line.starts_with("| ") && !line.starts_with("| you "));
    for row in rows {
        // Vertical bars in code are escaped.
        let lines = row.rsplit(" | ").next().unwrap_or_default();
        let lines = lines.replace("\\|", "|");
        for line in lines.split('`').skip(1).step_by(2) {
            count += 1;
            let is_compiled = compiled.iter().any(|block| block.contains(line));
            assert!(is_compiled, "{line}");
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn the_telemetry_page_names_every_field_and_no_other() {
    let mut telemetry = Telemetry::example();
    telemetry.usage = telemetry
        .usage
        .map(|usage| usage.cached_input(1).cache_write_input(1).reasoning(1));
    telemetry.wasted_usage = telemetry.usage;
    telemetry.estimated_usage = telemetry.usage;
    let cost = Cost::new(Money::cents(1), Currency::USD, CostSource::PriceList);
    (telemetry.cost, telemetry.wasted_cost) = (Some(cost), Some(cost));
    telemetry.estimated_cost = Some(cost);
    let denied = End::failed(&Failure::status(401));
    telemetry.error = ErrorRecord::of(&denied);
    assert_ne!(telemetry.usage, Some(Usage::new()));
    telemetry.guardrails = Some(GuardrailStats::default());
    telemetry.drift = Some(DriftStats::default());
    telemetry.parent_id = Some("l0_1".to_owned());
    telemetry.kept = Some(l0_core::KeepReason::Rate);
    let attempt = &mut telemetry.attempts[0];
    for name in [
        &mut attempt.model,
        &mut attempt.provider,
        &mut attempt.operation,
        &mut attempt.response_model,
        &mut attempt.response_id,
    ] {
        *name = Some("name".to_owned());
    }
    (attempt.count, attempt.fallbacks) = (2, 1);
    (attempt.cost, attempt.estimated_cost) = (Some(cost), Some(cost));
    (attempt.estimated_usage, attempt.unpriced) = (Some(Usage::new()), 1);
    (attempt.network_retries, attempt.model_retries) = (1, 1);
    attempt.guardrails = telemetry.guardrails.clone();
    attempt.drift = telemetry.drift.clone();
    let json = serde_json::to_value(&telemetry).expect("JSON");
    let mut fields = BTreeSet::new();
    collect_fields("", &json, &mut fields);

    let page = read(&root().join("docs/telemetry.md"));
    // The tables of fields have four columns.
    let rows =
        prose(&page).filter(|line| line.starts_with("| `") && line.matches(" |").count() == 4);
    let rows = rows.filter_map(|line| line.split('|').nth(1));
    let listed: BTreeSet<_> = rows
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, fields);
}

/// Collects the paths of all fields, without the keys of maps, and without the fields that an attempt shares
/// with its run.
fn collect_fields(path: &str, value: &Value, fields: &mut BTreeSet<String>) {
    const MAPS: [&str; 14] = [
        "metadata",
        "network.errorsByType",
        "guardrails.violationsByRule",
        "guardrails.violationsBySeverity",
        "guardrails.violationsByRuleAndSeverity",
        "attempts[].networkErrors",
        "attempts[].error",
        "attempts[].usage",
        "attempts[].cost",
        "attempts[].estimatedUsage",
        "attempts[].estimatedCost",
        "attempts[].interToken",
        "attempts[].guardrails",
        "attempts[].drift",
    ];
    if MAPS.contains(&path) {
        return;
    }
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                collect_fields(&path, value, fields);
                fields.insert(path);
            }
        }
        Value::Array(list) => {
            for value in list.iter().filter(|value| value.is_object()) {
                collect_fields(&format!("{path}[]"), value, fields);
            }
        }
        _ => {}
    }
}

#[test]
fn every_section_and_snippet_of_the_guide_has_its_page() {
    let page = read(&root().join("docs/guide.md"));
    let rows =
        prose(&page).filter(|line| line.starts_with("| ") && !line.contains("of the guide |"));
    let mut count = 0;
    for row in rows {
        count += 1;
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        for cell in &cells[1..] {
            assert!(
                cell.contains("](") || cell.starts_with("the table"),
                "{row}"
            );
        }
    }
    // 57 sections, and 45 rows for 47 snippets and a table.
    assert_eq!(count, 102);
}

#[test]
fn the_quoted_messages_are_those_of_the_code() {
    let page = read(&root().join("docs/troubleshooting.md"));
    let key = |key: &str| {
        let collector = Collector::builder().build().expect("valid");
        let refused = collector.label_keys([key]).expect_err("no label");
        refused.to_string()
    };
    let error = |error: l0_core::Error<io::Error>| error.to_string();
    let script = Script::new().attempt(|a| a.fail("an unknown error"));
    let failed = async { L0::default().stream(script.source()).start().text().await };
    let failed = failed.now_or_never().expect("ready at once");
    let messages = [
        key("error_type"),
        key("model-name"),
        error(l0_core::Error::NoTimer),
        error(l0_core::Error::ZeroOutput),
        failed.expect_err("it fails").to_string(),
    ];
    for message in messages {
        assert!(
            page.contains(&format!("```text\n{message}\n"))
                || page.contains(&format!("\n{message}\n```")),
            "{message}"
        );
    }
}

#[test]
fn every_example_is_listed_tested_and_has_its_command() {
    let list = read(&root().join("examples/README.md"));
    let tests: String = names("examples/tests", ".rs")
        .into_iter()
        .map(|name| read(&root().join(format!("examples/tests/{name}.rs"))))
        .chain([read(&root().join("examples/tests/prometheus/main.rs"))])
        .collect();
    let manifest = read(&root().join("examples/Cargo.toml"));
    for example in names("examples/src/bin", ".rs") {
        let code = read(&root().join(format!("examples/src/bin/{example}.rs")));
        let mut command = format!("cargo run -p l0-examples --bin {example}");
        if manifest.contains(&format!("required-features = [\"{example}\"]")) {
            command += &format!(" --features {example}");
        }
        let usage = code.split_once("\n#").map_or("", |(usage, _)| usage);
        assert!(
            usage
                .lines()
                .any(|line| line.starts_with("//! $ ") && line.contains(&command)),
            "{example}"
        );
        assert!(list.contains(&format!("`{command}`")), "{example}");
        assert!(
            tests.contains(&format!("CARGO_BIN_EXE_{example}\"")),
            "{example}"
        );
    }
}
