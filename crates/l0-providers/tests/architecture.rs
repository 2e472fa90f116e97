//! The crate's modules, from the top down: each imports only those below it.

use std::fs;
use std::path::{Path, PathBuf};

const MODULES: [&str; 12] = [
    "openai",
    "anthropic",
    "gemini",
    "client",
    "http_response",
    "response",
    "decode",
    "sse",
    "report",
    "error",
    "lenient",
    "token",
];

/// A module's file, or the files in its folder.
fn files(src: &Path, module: &str) -> Vec<PathBuf> {
    let folder = src.join(module);
    if !folder.is_dir() {
        return vec![folder.with_extension("rs")];
    }
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("a file").path()).collect()
}

#[test]
fn modules_import_only_those_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let count = fs::read_dir(&src).expect("a folder").count();
    assert_eq!(count, MODULES.len() + 1, "all but lib.rs are listed");
    for (place, module) in MODULES.iter().enumerate() {
        for file in files(&src, module) {
            let text = fs::read_to_string(file).expect("a module");
            for line in text
                .lines()
                .filter_map(|line| line.strip_prefix("use crate::"))
            {
                let imported = line.split([':', ';']).next().unwrap_or_default();
                let below = MODULES.iter().position(|name| *name == imported);
                let own = imported == *module;
                assert!(
                    own || below > Some(place),
                    "`{module}` imports `{imported}`"
                );
            }
        }
    }
}
