//! The crate's modules, from the top down: each imports only those below it.

use std::fs;
use std::path::Path;

/// In the order of the code map in `docs/architecture.md`.
const MODULES: [&str; 24] = [
    "testing",
    "l0",
    "run",
    "settings",
    "drift",
    "checks",
    "recorder",
    "stop",
    "retry",
    "observe",
    "monitor",
    "guardrail",
    "phrases",
    "redact",
    "event",
    "error",
    "telemetry",
    "distribution",
    "failure",
    "verdict",
    "token",
    "timeout",
    "units",
    "clock",
];

/// The sources of a module, one file or a folder of them, without their unit tests, which may
/// reach anywhere.
fn sources(module: &str) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = src.join(module).with_extension("rs");
    let files = if file.exists() {
        vec![file]
    } else {
        let folder = fs::read_dir(src.join(module)).expect("a module is a file or a folder");
        folder
            .map(|entry| entry.expect("a readable folder").path())
            .collect()
    };
    let code = |file| {
        let text = fs::read_to_string(file).expect("a readable file");
        let tests = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
        text[..tests].to_owned()
    };
    files.into_iter().map(code).collect()
}

#[test]
fn modules_import_only_those_below_them() {
    for (place, module) in MODULES.iter().enumerate() {
        for code in sources(module) {
            for line in code
                .lines()
                .filter_map(|line| line.strip_prefix("use crate::"))
            {
                let imported = line.split([':', ';', ' ']).next().unwrap_or_default();
                let below = MODULES.iter().position(|name| *name == imported);
                assert!(
                    imported == *module || below > Some(place),
                    "`{module}` imports `{imported}`, which is not below it"
                );
            }
        }
    }
}
