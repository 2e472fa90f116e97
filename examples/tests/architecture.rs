//! Checks that each module imports only modules below it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of each crate, from the top down.
const CRATES: &[(&str, &[&str])] = &[
    (
        "l0-core",
        &[
            "guide",
            "testing",
            "builder",
            "l0",
            "run",
            "monitor",
            "recorder",
            "options",
            "check",
            "live",
            "stop",
            "retry",
            "observe_fn",
            "observe",
            "source",
            "recording",
            "monitoring",
            "spending",
            "budget",
            "limits",
            "quantity",
            "event",
            "telemetry",
            "attempt_stats",
            "stats",
            "error",
            "end",
            "content",
            "verdict",
            "keys",
            "metadata",
            "redact",
            "failure",
            "distribution",
            "token",
            "estimate",
            "price",
            "usage",
            "money",
            "timeout",
            "progress",
            "stalls",
            "keep",
            "label",
            "units",
            "clock",
            "sync",
        ],
    ),
    (
        "l0-guardrails",
        &[
            "guardrails",
            "drift",
            "patterns",
            "custom",
            "json",
            "markdown",
            "latex",
            "zero_output",
            "wording",
            "phrases",
            "fence",
            "sentence",
            "hash",
        ],
    ),
    (
        "l0-providers",
        &[
            "testing",
            "openai",
            "anthropic",
            "gemini",
            "ollama",
            "client",
            "http_response",
            "request",
            "hosts",
            "completion",
            "embeddings",
            "tool_calls",
            "response",
            "decode",
            "frames",
            "lines",
            "sse",
            "opening",
            "error_response",
            "report",
            "secrets",
            "error",
            "classify",
            "repair",
            "usage",
            "lenient",
            "finish",
            "wait",
            "token",
        ],
    ),
    ("l0-genai", &["request", "event", "error", "usage"]),
    ("l0-rig", &["agent", "request", "event", "error"]),
    (
        "l0-async-openai",
        &[
            "chat",
            "responses",
            "embeddings",
            "stream",
            "viewed",
            "request",
            "client",
            "error",
        ],
    ),
    (
        "l0-export",
        &[
            "csv",
            "json",
            "log",
            "metrics",
            "queue",
            "append_file",
            "sources",
            "numbers",
            "names",
            "values",
        ],
    ),
    (
        "l0-report",
        &[
            "main",
            "cli",
            "compare",
            "html",
            "timeline",
            "csv",
            "summary",
            "read",
            "filter",
            "profile",
            "blocks",
            "table",
            "stats",
            "reasons",
            "sparkline",
            "quantiles",
            "cells",
            "first",
            "text",
        ],
    ),
    (
        "l0-prometheus",
        &[
            "route",
            "builder",
            "interceptor",
            "collector",
            "registry",
            "custom",
            "families",
            "exposition",
            "metrics",
            "series",
            "roster",
            "label_sets",
            "buckets",
            "histogram",
            "exemplar",
            "labels",
            "names",
            "layout",
            "number",
            "error",
        ],
    ),
    ("l0-live", &["route", "live", "table", "snapshot"]),
    (
        "l0-otel",
        &[
            "builder",
            "interceptor",
            "run",
            "instruments",
            "gaps",
            "dialects",
            "dialect",
            "attributes",
            "live",
            "numbers",
            "conventions",
        ],
    ),
    (
        "l0-tracing",
        &[
            "interceptor",
            "run",
            "attributes",
            "live",
            "numbers",
            "fields",
            "sites",
            "names",
        ],
    ),
    (
        "l0-sentry",
        &[
            "wrapper",
            "integration",
            "interceptor",
            "execution",
            "event",
            "breadcrumb",
            "spans",
            "content",
            "live",
            "config",
            "tags",
            "gen_ai",
            "ending",
            "data",
        ],
    ),
    ("l0-pricing", &["list", "litellm", "names", "characters"]),
    (
        "l0-metrics",
        &[
            "interceptor",
            "label_sets",
            "series",
            "streams",
            "breakdown",
            "sum",
            "handles",
            "gaps",
            "buckets",
            "labels",
            "layout",
        ],
    ),
    (
        "l0-statsd",
        &[
            "builder",
            "interceptor",
            "line",
            "packet",
            "socket",
            "error",
        ],
    ),
];

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Returns the imports of a module from other modules. Unit tests can import any module, so they are
/// skipped.
fn imports(src: &Path, module: &str) -> BTreeSet<String> {
    let folder = src.join(module);
    let mut paths = vec![folder.with_extension("rs"), folder];
    let mut imports = BTreeSet::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(entries(&path));
            continue;
        }
        if !path.exists() || path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap();
        let lines = code
            .lines()
            .filter_map(|line| line.strip_prefix("use crate::"));
        imports.extend(lines.map(|line| {
            let name = line.split([':', ';', ' ']).next().unwrap();
            name.to_owned()
        }));
    }
    imports.remove(module);
    imports
}

#[test]
fn modules_import_only_those_below_them() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for (name, modules) in CRATES {
        let src = crates.join(name).join("src");
        let there: BTreeSet<_> = entries(&src)
            .iter()
            // Skips files that modules include, such as a page.
            .filter(|path| path.extension().is_none_or(|extension| extension == "rs"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|module| module != "lib")
            .collect();
        let listed: BTreeSet<_> = modules.iter().map(|module| (*module).to_owned()).collect();
        assert_eq!(there, listed, "{name}");
        for (place, module) in modules.iter().enumerate() {
            for imported in imports(&src, module) {
                let below = modules.iter().position(|name| *name == imported);
                assert!(
                    below > Some(place),
                    "{name}: `{module}` imports `{imported}`, which is not below it"
                );
            }
        }
    }
}
