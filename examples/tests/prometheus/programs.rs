//! External programs: Prometheus, its Pushgateway, `promtool`.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use reqwest::Url;
use serde_json::{Value, json};

use crate::common::{DEADLINE, Labels, Samples, free_address, pause, pipe, wait_for};
use crate::documents::{is_interval, rule_files};

/// A program that serves on the loopback from its own folder until it is dropped.
pub(crate) struct Program {
    process: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts the program and waits until it is ready. `arguments` can write files to the folder.
    pub(crate) async fn start(
        program: &OsStr,
        arguments: impl FnOnce(&Path, SocketAddr) -> Vec<OsString>,
    ) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);

        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("l0-{}-{number}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let address = free_address();
        let log = File::create(folder.join("log")).unwrap();
        let process = Command::new(program)
            .args(arguments(&folder, address))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut program = Self {
            process,
            folder,
            address,
        };
        let ready = format!("http://{address}/-/ready");
        wait_for("it is ready", async || {
            let ended = program.process.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {}", program.log());
            let response = reqwest::get(&ready).await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
        program
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) struct Prometheus {
    program: Program,
    pub(crate) rules: Vec<PathBuf>,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these addresses twice a second.
    pub(crate) async fn start(program: &OsStr, targets: &[SocketAddr], more: &[&str]) -> Self {
        let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
        let rules = rule_files();
        let program = Program::start(program, |folder, address| {
            let config = json!({
                "global": {
                    "scrape_interval": "500ms",
                    "scrape_timeout": "500ms",
                    "evaluation_interval": "500ms",
                },
                "rule_files": copies(&rules, folder),
                "scrape_configs": [{
                    "job_name": "chat",
                    // Pushed metrics have their own labels.
                    "honor_labels": true,
                    "static_configs": [{ "targets": targets }],
                }],
            });
            // JSON is YAML.
            let file = folder.join("prometheus.yml");
            fs::write(&file, config.to_string()).unwrap();
            let mut arguments = vec![
                argument("--config.file=", file),
                argument("--storage.tsdb.path=", folder.join("data")),
                argument("--web.listen-address=", address.to_string()),
            ];
            arguments.extend(more.iter().map(OsString::from));
            arguments
        })
        .await;
        Self { program, rules }
    }

    pub(crate) async fn api(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.program.address);
        let url = Url::parse_with_params(&url, parameters).unwrap();
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(format!("{parameters:?}: {}", answer["error"]))
        }
    }

    /// Returns the result of a query now or at a time.
    pub(crate) async fn query(&self, query: &str, time: Option<f64>) -> Samples {
        let time = time.map(|time| time.to_string());
        let mut parameters = vec![("query", query)];
        parameters.extend(time.as_deref().map(|time| ("time", time)));
        let data = self.api("query", &parameters).await.unwrap();
        let value = |value: &Value| value[1].as_str().unwrap().parse::<f64>().unwrap();
        if data["resultType"] == "scalar" {
            return Samples([(Labels::new(), value(&data["result"]))].into());
        }
        let results = data["result"].as_array().unwrap().iter().map(|result| {
            let labels: Labels = serde_json::from_value(result["metric"].clone()).unwrap();
            (labels, value(&result["value"]))
        });
        Samples(results.collect())
    }

    /// Returns the only value of a query.
    pub(crate) async fn value(&self, query: &str, time: Option<f64>) -> f64 {
        let samples = self.query(query, time).await;
        assert_eq!(samples.0.len(), 1, "{query}: {samples:?}");
        *samples.0.values().next().unwrap()
    }

    /// Returns all L0 samples, as exposed.
    pub(crate) async fn samples(&self) -> Samples {
        let samples = self.query("{__name__=~\"l0_.+\"}", None).await;
        samples.without(&["instance", "job"])
    }

    /// Waits until a query returns exactly these samples.
    pub(crate) async fn wait_for(&self, query: &str, expected: &Samples) {
        let start = Instant::now();
        loop {
            let samples = self.query(query, None).await;
            let samples = with_one_spelling(samples.without(&["instance", "job"]));
            if samples == *expected {
                return;
            }
            if start.elapsed() > DEADLINE {
                let mine: BTreeSet<_> = lines(expected);
                let theirs: BTreeSet<_> = lines(&samples);
                let missing: Vec<_> = mine.difference(&theirs).collect();
                let foreign: Vec<_> = theirs.difference(&mine).collect();
                panic!("missing: {missing:#?}\nforeign: {foreign:#?}");
            }
            pause().await;
        }
    }

    /// Waits for a scrape that starts after now. Returns the time by the clock of Prometheus.
    pub(crate) async fn scraped(&self) -> f64 {
        let now = self.value("time()", None).await;
        wait_for("it scrapes", async || {
            // A failed scrape has no sample.
            let last = self.query("min(timestamp(l0_streams_active))", None).await;
            last.0.values().any(|last| *last > now).then_some(())
        })
        .await;
        now
    }
}

/// Copies files of rules without their intervals, so they are evaluated at the short interval of these
/// tests.
fn copies(rules: &[PathBuf], folder: &Path) -> Vec<PathBuf> {
    let copies = rules.iter().map(|rules| {
        let text = fs::read_to_string(rules).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !is_interval(line)).collect();
        let copy = folder.join(rules.file_name().unwrap());
        fs::write(&copy, lines.join("\n")).unwrap();
        copy
    });
    copies.collect()
}

pub(crate) fn argument(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(value);
    argument
}

fn lines(samples: &Samples) -> BTreeSet<String> {
    let samples = samples.0.iter();
    samples
        .map(|(labels, value)| format!("{labels:?} {value}"))
        .collect()
}

/// Unifies the spelling of bucket bounds, which Prometheus writes differently after a protobuf scrape.
pub(crate) fn with_one_spelling(samples: Samples) -> Samples {
    let samples = samples.0.into_iter().map(|(mut labels, value)| {
        if let Some(bound) = labels.get_mut("le") {
            *bound = bound.parse::<f64>().unwrap().to_string();
        }
        (labels, value)
    });
    Samples(samples.collect())
}

/// Runs `promtool`, next to `prometheus` or on the path. Returns its output.
pub(crate) fn promtool(prometheus: &OsStr, arguments: &[&OsStr], input: &str) -> String {
    let beside = Path::new(prometheus).with_file_name("promtool");
    let promtool = if beside.is_file() {
        beside.into_os_string()
    } else {
        "promtool".into()
    };
    pipe(Command::new(promtool).args(arguments), input)
}
