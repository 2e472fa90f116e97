//! The dashboards and rules of the documents.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Samples, wait_for};
use crate::counted;
use crate::guide::Window;
use crate::programs::{Prometheus, promtool};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Returns the files in a folder of the documents, or none if the folder does not exist.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(docs().join(folder)) else {
        return Vec::new();
    };
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|one| one == extension))
        .collect()
}

/// Returns the files with rules, without the tests of rules.
pub(crate) fn rule_files() -> Vec<PathBuf> {
    let mut files = files("prometheus", "yml");
    files.retain(|file| {
        let text = fs::read_to_string(file).unwrap();
        text.lines().any(|line| line.starts_with("groups:"))
    });
    files
}

/// Returns `true` if the line sets the interval of a rule group.
pub(crate) fn is_interval(line: &str) -> bool {
    line.trim_start_matches([' ', '-']).starts_with("interval:")
}

/// Returns all values under a key of a JSON document, at any depth.
fn find<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key {
                    found.push(value);
                }
                find(value, key, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| find(value, key, found)),
        _ => {}
    }
}

/// Returns an expression with the variables replaced, as Grafana does.
fn filled_in(expression: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, after) = match after.strip_prefix('{') {
            Some(inside) => inside.split_once('}').unwrap(),
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        let (name, _format) = name.split_once(':').unwrap_or((name, ""));
        text.push_str(variables.get(name).map_or(".*", |value| value));
        rest = after;
    }
    text + rest
}

/// Returns the variables of a dashboard without the label selections, which are `.*`.
fn variables(dashboard: &Value, range: &str) -> BTreeMap<String, String> {
    let ranges = ["__rate_interval", "__interval", "__range"];
    let mut variables = BTreeMap::from(ranges.map(|name| (name.to_owned(), range.to_owned())));
    let list = dashboard["templating"]["list"].as_array();
    for variable in list.into_iter().flatten() {
        let kind = variable["type"].as_str().unwrap();
        if ["constant", "custom", "interval", "textbox"].contains(&kind) {
            let name = variable["name"].as_str().unwrap();
            let current = variable["current"]["value"].as_str();
            let choices = variable["query"].as_str();
            let first = choices.and_then(|choices| choices.split(',').next());
            let value = current.or(first).unwrap_or_default().trim();
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    variables
}

/// Metrics of things that the chat application does not do.
const NO_FALLBACKS: &str = "l0_fallbacks";

/// Checks the dashboard queries and rules with this metric over the window. A counting query must return the
/// correct number. Returns the number of queries.
pub(crate) async fn check_queries(prometheus: &Prometheus, window: &Window, metric: &str) -> usize {
    let mut queries = Vec::new();
    for file in files("grafana", "json") {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let variables = variables(&dashboard, &window.range());
        let mut expressions = Vec::new();
        find(&dashboard, "expr", &mut expressions);
        let expressions = expressions.iter().filter_map(|one| one.as_str());
        queries.extend(expressions.map(|one| filled_in(one, &variables)));
    }
    let rules = prometheus.api("rules", &[]).await.unwrap();
    let mut expressions = Vec::new();
    find(&rules, "query", &mut expressions);
    let expressions = expressions.iter().filter_map(|one| one.as_str());
    queries.extend(expressions.map(|one| one.replace("[5m]", &format!("[{}]", window.range()))));
    queries.retain(|query| query.contains(metric));
    for query in &queries {
        // A comparison returns nothing if it is false.
        if query.contains(" > ") || query.contains(':') {
            prometheus.query(query, None).await;
            continue;
        }
        let samples = window.query(prometheus, query).await;
        let finite = samples.0.values().any(|value| value.is_finite());
        assert!(finite, "{query}: {samples:?}");
        assert!(counted::check(query, &samples, window), "{query}");
    }
    queries.len()
}

/// Checks that each query of the dashboards returns a number over the window, except for metrics in
/// `absent`. A counting query must return the correct number.
pub(crate) async fn check_dashboards(prometheus: &Prometheus, window: &Window, absent: &[&str]) {
    let files = files("grafana", "json");
    if files.is_empty() {
        println!("no dashboards found");
    }
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let variables = variables(&dashboard, &window.range());
        let mut expressions = Vec::new();
        find(&dashboard, "expr", &mut expressions);
        assert!(!expressions.is_empty());
        let mut counted = 0;
        for expression in &expressions {
            let query = filled_in(expression.as_str().unwrap(), &variables);
            // Recorded series are checked below.
            let samples = if query.contains(':') {
                query_until_there(prometheus, &query).await
            } else {
                window.query(prometheus, &query).await
            };
            let finite = samples.0.values().any(|value| value.is_finite());
            let absent = absent.iter().chain([&NO_FALLBACKS]);
            let absent = absent.copied().any(|name| query.contains(name));
            assert_ne!(finite, absent, "{query}: {samples:?}");
            counted += u32::from(counted::check(&query, &samples, window));
        }
        println!(
            "{} queries of a dashboard, {counted} of them count",
            expressions.len()
        );

        let mut queries = Vec::new();
        find(&dashboard["templating"], "query", &mut queries);
        for query in queries.iter().filter_map(|query| query.as_str()) {
            let values = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|inside| inside.rsplit_once(','));
            if let Some((series, label)) = values {
                let series = filled_in(series, &variables);
                let path = format!("label/{}/values", label.trim());
                let values = prometheus.api(&path, &[("match[]", &series)]).await;
                assert!(!values.unwrap().as_array().unwrap().is_empty(), "{query}");
            }
        }
    }
}

/// Checks that each rule is evaluated without an error and records its series. A counting rule must return
/// the correct number over the window.
pub(crate) async fn check_rules(binary: &OsStr, prometheus: &Prometheus, window: &Window) {
    if prometheus.rules.is_empty() {
        println!("no rules found");
    }
    for file in &prometheus.rules {
        let check = [OsStr::new("check"), OsStr::new("rules"), file.as_os_str()];
        promtool(binary, &check, "");
    }
    let rules = wait_for("all rules are evaluated", async || {
        let answer = prometheus.api("rules", &[]).await.unwrap();
        let groups = answer["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
        let rules: Vec<_> = rules.collect();
        let evaluated = |rule: &Value| rule["health"] != "unknown";
        rules.iter().all(evaluated).then_some(rules)
    })
    .await;
    assert_eq!(rules.is_empty(), prometheus.rules.is_empty());
    let mut counted = 0;
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(rule["lastError"].is_null(), "{rule}");
        let name = rule["name"].as_str().unwrap();
        if rule["type"] == "recording" && !name.contains(NO_FALLBACKS) {
            query_until_there(prometheus, name).await;
        }
        let query = rule["query"].as_str().unwrap();
        let query = query.replace("[5m]", &format!("[{}]", window.range()));
        let samples = window.query(prometheus, &query).await;
        counted += u32::from(counted::check(&query, &samples, window));
    }
    println!("{} rules, {counted} of them count", rules.len());
}

/// Polls a query until it returns a number.
async fn query_until_there(prometheus: &Prometheus, query: &str) -> Samples {
    wait_for(query, async || {
        let samples = prometheus.query(query, None).await;
        let finite = samples.0.values().any(|value| value.is_finite());
        finite.then_some(samples)
    })
    .await
}
