//! Each published crate has a README, which is made from its manifest and from the beginning of its docs.
//!
//! `L0_WRITE=1 cargo test -p l0-examples --test published` writes them.

use std::fs;

use super::{hold, links, root};

/// The published crates, with the pages of the guide that are about them.
const CRATES: [(&str, &[&str]); 16] = [
    ("l0-async-openai", &["sources", "with-what-you-have"]),
    ("l0-core", &["quick-start", "reliability", "telemetry"]),
    ("l0-export", &["exporters"]),
    ("l0-genai", &["sources", "with-what-you-have"]),
    ("l0-guardrails", &["quality"]),
    ("l0-live", &["live"]),
    ("l0-metrics", &["exporters", "prometheus"]),
    ("l0-otel", &["otel"]),
    ("l0-pricing", &["cost"]),
    ("l0-prometheus", &["prometheus"]),
    ("l0-providers", &["sources", "tool-calls"]),
    ("l0-report", &["report"]),
    ("l0-rig", &["sources", "with-what-you-have"]),
    ("l0-sentry", &["sentry"]),
    ("l0-statsd", &["exporters"]),
    ("l0-tracing", &["tracing"]),
];

/// The value of a key of a manifest, between its first quotes.
fn value<'a>(manifest: &'a str, key: &str) -> &'a str {
    let mut lines = manifest.lines();
    let line = lines.find(|line| line.starts_with(&format!("{key} = ")));
    let line = line.unwrap_or_else(|| panic!("the manifest has no {key}"));
    line.split('"').nth(1).expect("a value in quotes")
}

/// The docs of a crate, without the lines that rustdoc hides.
fn docs(source: &str) -> String {
    let mut code = false;
    let mut out = String::new();
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("```") {
            code = !code;
            // Without a language, rustdoc reads Rust. Others do not.
            let rust = ["```", "```no_run", "```ignore"].contains(&line);
            out += if code && rust { "```rust" } else { line };
        } else if code && (line == "#" || line.starts_with("# ")) {
            continue;
        } else {
            out += line;
        }
        out.push('\n');
    }
    out
}

/// The text before the first heading, and the section on features.
fn beginning(docs: &str) -> String {
    let mut kept = String::new();
    let mut keeps = true;
    let mut code = false;
    for line in docs.lines() {
        code ^= line.starts_with("```");
        if !code && let Some(heading) = line.strip_prefix("# ") {
            keeps = heading == "Features";
        }
        if keeps {
            // Headings of the docs are one level below the README's own.
            kept += if !code && line.starts_with('#') {
                "#"
            } else {
                ""
            };
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

fn readme(name: &str, pages: &[&str]) -> String {
    let folder = root().join("crates").join(name);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    let source = fs::read_to_string(folder.join("src/lib.rs")).expect("a crate");
    let docs = beginning(&docs(&source));
    // Links of the docs lead to items, which only rustdoc finds.
    let docs = links::rewritten(&docs, |target| {
        target.starts_with("https://").then(|| target.to_owned())
    });
    let pages: Vec<_> = pages
        .iter()
        .map(|page| {
            let module = page.replace('-', "_");
            format!("[{page}](https://docs.rs/l0-core/latest/l0_core/guide/{module}/)")
        })
        .collect();
    let rust = value(&manifest, "rust-version");
    let add = match name {
        "l0-core" => "cargo add l0-core".to_owned(),
        "l0-report" => "cargo install l0-report".to_owned(),
        name => format!("cargo add l0-core {name}"),
    };
    format!(
        "# {name}\n\n{}\n\n```sh\n{add}\n```\n\n\
         Part of [L0](https://docs.rs/l0-core), which wraps streams of tokens from LLMs and measures them. \
         Full documentation: [docs.rs/{name}](https://docs.rs/{name}); in the guide: {}.\n\n\
         Minimum Rust version: {rust}. Licensed under MIT or Apache-2.0, at your option.\n",
        docs.trim(),
        pages.join(", "),
    )
}

#[test]
fn each_crate_has_its_readme_and_licenses() {
    for (name, pages) in CRATES {
        for page in pages {
            assert!(root().join(format!("docs/{page}.md")).exists(), "{page}");
        }
        let folder = root().join("crates").join(name);
        hold(&folder.join("README.md"), &readme(name, pages));
        for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
            assert!(folder.join(license).exists(), "{name} has no {license}");
        }
    }
}

#[test]
fn each_published_crate_is_listed() {
    let mut published = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("a folder") {
        let folder = entry.expect("an entry").path();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        if !manifest.contains("\npublish = false\n") {
            published.push(value(&manifest, "name").to_owned());
        }
    }
    published.sort_unstable();
    assert_eq!(published, CRATES.map(|(name, _)| name));
}

#[test]
fn a_readme_has_the_beginning_of_the_docs_and_the_features() {
    let source = "\
        //! Does it, for [`Run`].\n//!\n//! ```\n//! let a = 1;\n//! # drop(a);\n//! ```\n//!\n\
        //! # More\n//!\n//! Left out.\n//!\n//! # Features\n//!\n//! | a | b |\n\nmod run;\n";
    assert_eq!(
        beginning(&docs(source)),
        "Does it, for [`Run`].\n\n```rust\nlet a = 1;\n```\n\n## Features\n\n| a | b |\n"
    );
}
