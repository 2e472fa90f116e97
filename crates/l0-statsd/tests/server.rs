//! Tests against a real server, Etsy's `StatsD`. `L0_STATSD` enables them: it names the folder of the npm
//! package `statsd`. They need Node.js.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use common::DEADLINE;
use l0_core::{End, ErrorRecord, Failure, Outcome, Telemetry};
use l0_export::metrics::{MetricKind, MetricPoint, points};
use l0_statsd::{MetricTypes, StatsdBuilder, StatsdInterceptor};

/// A loopback server that prints what it receives and computes.
struct Statsd {
    process: Child,
    folder: PathBuf,
    address: String,
    lines: Receiver<String>,
    output: String,
}

impl Statsd {
    fn start(package: &Path) -> Self {
        let folder = env::temp_dir().join(format!("l0-statsd-server-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let management = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let management = management.unwrap().port();
        let config = folder.join("config.js");
        let settings = format!(
            r#"{{
                address: "127.0.0.1", port: {port},
                mgmt_address: "127.0.0.1", mgmt_port: {management},
                backends: ["./backends/console"],
                flushInterval: 500, deleteIdleStats: true, dumpMessages: true,
                automaticConfigReload: false,
            }}"#
        );
        fs::write(&config, settings).unwrap();

        let mut process = Command::new("node")
            .arg("stats.js")
            .arg(&config)
            .current_dir(package)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut statsd = Self {
            process,
            folder,
            address: format!("127.0.0.1:{port}"),
            lines,
            output: String::new(),
        };
        statsd.wait_until_it_listens();
        statsd
    }

    fn wait_until_it_listens(&mut self) {
        const PROBE: &str = "probe:1|c";
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = self.address.clone();
        self.wait("it accepts a probe", |output| {
            // Lost or refused until the server listens.
            let _ = socket.send_to(PROBE.as_bytes(), &address);
            output.contains(PROBE)
        });
    }

    /// Reads until the output satisfies the condition.
    fn wait(&mut self, what: &str, done: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(&self.output) {
            assert!(
                Instant::now() < deadline,
                "not seen: {what}\n{}",
                self.output
            );
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    self.output.push_str(&line);
                    self.output.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("it has ended\n{}", self.output),
            }
        }
    }

    fn builder(&self, prefix: &str) -> StatsdBuilder {
        StatsdInterceptor::builder(&self.address).prefix(prefix)
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the values that the server flushed so far, as `section name = value`.
fn flushed(output: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for flush in output.split("Flushing stats at ").skip(1) {
        let flush: Vec<_> = flush.split_whitespace().collect();
        let flush = flush.join(" ");
        for (section, next) in [
            ("counters", "timers"),
            ("timers", "gauges"),
            ("gauges", "timer_data"),
        ] {
            let entries = flush
                .split_once(&format!("{section}: {{ "))
                .and_then(|(_, rest)| rest.split_once(&format!(" }}, {next}: ")));
            for entry in entries.iter().flat_map(|(entries, _)| entries.split(", '")) {
                let (name, value) = entry.split_once("': ").unwrap();
                let name = name.trim_start_matches('\'');
                all.insert(format!("{section} {name} = {value}"));
            }
        }
    }
    all
}

fn statsd_types(point: &MetricPoint<'_>) -> &'static str {
    match point.kind {
        MetricKind::Count => "counters",
        MetricKind::Duration => "timers",
        _ => "gauges",
    }
}

/// Returns the expected results of the server for these values of one name, in order.
fn expected(section: &str, values: &[f64]) -> String {
    match section {
        "counters" => values.iter().sum::<f64>().to_string(),
        "timers" => {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let values: Vec<_> = sorted.iter().map(f64::to_string).collect();
            format!("[ {} ]", values.join(", "))
        }
        _ => values.last().unwrap().to_string(),
    }
}

#[test]
fn etsys_server_understands_every_line() {
    let Some(package) = env::var_os("L0_STATSD") else {
        println!("skipped: L0_STATSD is not set");
        return;
    };
    let mut server = Statsd::start(Path::new(&package));
    let mut telemetry = Telemetry::example();
    let denied = std::io::Error::other(Failure::status(401));
    telemetry.outcome = Some(Outcome::Failed);
    telemetry.error = ErrorRecord::of(&End::failed(&denied));
    let hostile = "gpt 4|c\nl0.runs:999|c|#a;b=c;d".into();
    telemetry.metadata.insert("model".to_owned(), hostile);

    let tagged = |builder: StatsdBuilder| {
        let builder = builder.tag("env", "test").tag_keys(["model"]);
        builder.unwrap()
    };
    // This server replaces the colon of a tag by `=`.
    let tags = ";env=test;model=gpt_4_c_l0.runs_999_c__a_b=c_d";
    let builders = [
        tagged(server.builder("tagged").types(MetricTypes::Statsd)),
        server
            .builder("plain")
            .types(MetricTypes::Statsd)
            .without_tags(),
        tagged(server.builder("gauges").types(MetricTypes::Gauges)),
    ];
    let mut sent: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for point in points(&telemetry) {
        let name = point.name.strip_prefix("l0").unwrap();
        let own = point.tags.iter().next();
        let own_tag = own.map_or(String::new(), |(key, value)| format!(";{key}={value}"));
        let own_part = own.map_or(String::new(), |(_, value)| format!(".{value}"));
        for (name, section) in [
            (format!("tagged{name}{tags}{own_tag}"), statsd_types(&point)),
            (format!("plain{name}{own_part}"), statsd_types(&point)),
            (format!("gauges{name}{tags}{own_tag}"), "gauges"),
        ] {
            sent.entry((section, name)).or_default().push(point.value);
        }
    }
    let lines = sent.iter().map(|((section, name), values)| {
        format!("{section} {name} = {}", expected(section, values))
    });
    let expected: BTreeSet<_> = lines.collect();

    for builder in builders {
        let statsd = builder.build().unwrap();
        statsd.send(&telemetry);
        assert_eq!(statsd.dropped(), 0);
    }
    server.wait(&format!("{expected:#?}"), |output| {
        expected.is_subset(&flushed(output))
    });

    let seen = flushed(&server.output);
    let foreign: Vec<_> = seen
        .difference(&expected)
        .filter(|entry| !entry.contains(" statsd.") && !entry.contains(" probe "))
        .collect();
    assert_eq!(foreign, [] as [&String; 0]);
    let bad = seen.iter().filter(|entry| entry.contains("bad_lines_seen"));
    assert_eq!(
        bad.collect::<Vec<_>>(),
        ["counters statsd.bad_lines_seen = 0"]
    );
    assert!(!server.output.contains("Bad line"), "{}", server.output);
    for entry in seen.intersection(&expected) {
        println!("{entry}");
    }
}
