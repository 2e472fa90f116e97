//! A strict reader of the text format that shares no code with the crate, and other readers of the format, if
//! installed.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The labels of a sample, by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// A family: its type, its help text and its samples by name and labels.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: BTreeMap<(String, Labels), f64>,
}

/// A parsed exposition.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
}

impl Exposition {
    /// The value of one sample.
    pub(crate) fn get<const N: usize>(&self, name: &str, labels: [(&str, &str); N]) -> Option<f64> {
        let labels: Labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let key = (name.to_owned(), labels);
        self.families
            .values()
            .find_map(|family| family.samples.get(&key).copied())
    }

    /// The sum over all label sets.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples
            .filter(|((sample, _), _)| sample == name)
            .map(|(_, value)| value)
            .sum()
    }

    /// All label sets of a sample.
    pub(crate) fn label_sets(&self, name: &str) -> Vec<Labels> {
        let samples = self
            .families
            .values()
            .flat_map(|family| family.samples.keys());
        samples
            .filter(|(sample, _)| sample == name)
            .map(|(_, labels)| labels.clone())
            .collect()
    }
}

/// Reads an exposition. Panics at every violation: split families, duplicate samples, histograms whose buckets
/// do not ascend to their count.
pub(crate) fn read(text: &str) -> Exposition {
    let mut exposition = Exposition::default();
    let mut current: Option<(String, Family)> = None;
    let mut done = |family: Option<(String, Family)>| {
        if let Some((name, family)) = family {
            assert!(!family.samples.is_empty(), "{name} has no samples");
            check_histogram(&name, &family);
            let before = exposition.families.insert(name.clone(), family);
            assert!(before.is_none(), "{name} appears twice");
        }
    };
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "no newline at the end"
    );
    for line in text.split_terminator('\n') {
        if let Some(head) = line.strip_prefix("# HELP ") {
            done(current.take());
            let (name, help) = head.split_once(' ').expect("a help text");
            let help = help.replace("\\n", "\n").replace("\\\\", "\\");
            current = Some((
                name.to_owned(),
                Family {
                    help,
                    ..Family::default()
                },
            ));
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect("a type");
            let family = current.as_mut().expect("help before type");
            assert_eq!(family.0, name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kind.clone_into(&mut family.1.kind);
        } else {
            let (name, labels, value) = read_sample(line);
            let family = current.as_mut().expect("a head before samples");
            let suffix = name
                .strip_prefix(&family.0)
                .expect("a sample of the current family");
            let suffixes: &[&str] = match &*family.1.kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            if family.1.kind == "counter" {
                assert!(value >= 0.0, "{line}");
            }
            let before = family.1.samples.insert((name, labels), value);
            assert!(before.is_none(), "twice: {line}");
        }
    }
    done(current);
    exposition
}

fn check_histogram(name: &str, family: &Family) {
    if family.kind != "histogram" {
        return;
    }
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((sample, labels), &count) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut labels = labels.clone();
            let le = labels.remove("le").expect("a bound");
            let bound = if le == "+Inf" {
                f64::INFINITY
            } else {
                le.parse().expect("a number")
            };
            buckets.entry(labels).or_default().push((bound, count));
        }
    }
    for (labels, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{name} {labels:?}: {buckets:?}"
        );
        let last = buckets.last().expect("a bucket");
        assert_eq!(last.0, f64::INFINITY, "{name} {labels:?}");
        let of = |suffix| {
            family
                .samples
                .get(&(format!("{name}{suffix}"), labels.clone()))
        };
        assert_eq!(of("_count"), Some(&last.1), "{name} {labels:?}");
        assert!(of("_sum").is_some(), "{name} {labels:?}");
    }
}

/// Parses one sample by the grammar: a name, labels in braces, a value.
fn read_sample(line: &str) -> (String, Labels, f64) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line
        .find(|c| !is_name(c))
        .expect("something after the name");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let end = rest.find(|c| !is_name(c)).expect("a value");
            let (label, value) = rest.split_at(end);
            let value = value.strip_prefix("=\"").expect("a quoted value");
            let mut text = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match chars.next().expect("an escape").1 {
                        'n' => '\n',
                        '"' => '"',
                        '\\' => '\\',
                        other => panic!("\\{other} is not an escape"),
                    }),
                    (_, other) => text.push(other),
                }
            };
            assert!(!label.is_empty(), "a label without a name: {line}");
            assert!(
                labels.insert(label.to_owned(), text).is_none(),
                "duplicate label: {line}"
            );
            rest = &value[end + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("expected a comma or a brace: {line}"),
            }
        }
    }
    let value = match rest.strip_prefix(' ').expect("a space before the value") {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        value => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            assert!(digits.starts_with(|c: char| c.is_ascii_digit()), "{line}");
            value.parse().expect("a number")
        }
    };
    (name.to_owned(), labels, value)
}

/// Checks an OpenMetrics exposition with another program: `strict_exposition.py`, as below.
pub(crate) fn check_openmetrics_with_peers(text: &str) {
    check_strictly(text, "openmetrics");
}

/// Checks an exposition with other programs: `promtool check metrics`, if it is installed, and
/// `strict_exposition.py` in the folder that `L0_PEERS` names. `L0_PYTHON` names a Python with
/// `prometheus_client`.
pub(crate) fn check_with_peers(text: &str) {
    let promtool = Command::new("promtool").arg("--version").output();
    if promtool.is_ok_and(|output| output.status.success()) {
        pipe(Command::new("promtool").args(["check", "metrics"]), text);
    }
    check_strictly(text, "text");
}

fn check_strictly(text: &str, format: &str) {
    let (peers, python) = (std::env::var_os("L0_PEERS"), std::env::var_os("L0_PYTHON"));
    if let (Some(peers), Some(python)) = (peers, python) {
        let script = Path::new(&peers).join("strict_exposition.py");
        pipe(Command::new(python).arg(script).arg(format), text);
    }
}

fn pipe(command: &mut Command, text: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the peer ends");
    writer
        .join()
        .expect("no panic")
        .expect("the peer reads all");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
