//! The crate's modules, from the top down: each imports only those below it.

use std::fs;
use std::path::Path;

const MODULES: [&str; 8] = [
    "builder",
    "interceptor",
    "run",
    "instruments",
    "attributes",
    "gaps",
    "error_type",
    "conventions",
];

#[test]
fn modules_import_only_those_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = fs::read_dir(&src).expect("a folder").count();
    assert_eq!(files, MODULES.len() + 1, "all but lib.rs are listed");
    for (place, module) in MODULES.iter().enumerate() {
        let text = fs::read_to_string(src.join(module).with_extension("rs")).expect("a module");
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("use crate::"))
        {
            let imported = line.split([':', ';']).next().unwrap_or_default();
            let below = MODULES.iter().position(|name| *name == imported);
            assert!(below > Some(place), "`{module}` imports `{imported}`");
        }
    }
}
