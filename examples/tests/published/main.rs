//! Compares what is published with the repository: the guide in the docs of `l0_core`, and the README of each crate.

mod guide;
mod links;
mod readmes;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Checks that a file has this text, or writes it, if the environment has `L0_WRITE`.
#[track_caller]
fn hold(file: &Path, text: &str) {
    if std::env::var_os("L0_WRITE").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("written");
    }
    let held = fs::read_to_string(file).unwrap_or_default();
    assert!(
        held == text,
        "{} is out of date: write it with L0_WRITE=1",
        file.display()
    );
}
