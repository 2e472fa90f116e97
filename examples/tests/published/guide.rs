//! The guide in the docs of `l0_core` is the guide in `docs`, with links that lead somewhere on docs.rs.
//!
//! A crate can only include files of its own folder. So `crates/l0-core/guide` holds a copy of each page.
//! `L0_WRITE=1 cargo test -p l0-examples --test published` writes the copies.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{hold, links, root};

fn pages() -> BTreeSet<String> {
    names(&root().join("docs"))
}

/// The names of the Markdown files of a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names.filter(|name| name.ends_with(".md")).collect()
}

/// The module of a page, as seen from everywhere in `l0_core`.
fn module(page: &str) -> String {
    match page.strip_suffix(".md").expect("a page") {
        "README" => "crate::guide".to_owned(),
        name => format!("crate::guide::{}", name.replace('-', "_")),
    }
}

/// Where a link leads on docs.rs, or `None` if its target is only in the repository.
fn on_docs_rs(target: &str) -> Option<String> {
    let (file, anchor) = target.split_at(target.find('#').unwrap_or(target.len()));
    if file.is_empty() || file.starts_with("https://") {
        return Some(target.to_owned());
    }
    if let Some(inside) = file.strip_prefix("../crates/") {
        let name = inside.split('/').next().expect("a first part");
        let published = !["l0-bench", "l0-instructions"].contains(&name);
        return published.then(|| format!("https://docs.rs/{name}"));
    }
    let is_page = file.ends_with(".md") && !file.contains('/');
    is_page.then(|| format!("{}{anchor}", module(file)))
}

/// A page as docs.rs shows it: pictures are left out, and so are links to what is not there.
fn for_docs_rs(page: &str) -> String {
    links::rewritten(page, on_docs_rs)
}

#[test]
fn the_guide_in_the_docs_of_core_is_that_of_the_repository() {
    let folder = root().join("crates/l0-core/guide");
    for page in pages() {
        let text = fs::read_to_string(root().join("docs").join(&page)).expect("a page");
        hold(&folder.join(&page), &for_docs_rs(&text));
    }
    assert_eq!(names(&folder), pages());
}

#[test]
fn the_docs_of_core_include_every_page() {
    let source = fs::read_to_string(root().join("crates/l0-core/src/guide.rs")).expect("a module");
    for page in pages() {
        let include = format!("include_str!(\"../guide/{page}\")");
        assert!(source.contains(&include), "{page}");
        if page != "README.md" {
            let module = module(&page);
            let name = module.rsplit("::").next().expect("a name");
            assert!(source.contains(&format!("pub mod {name} {{}}")), "{name}");
        }
    }
}

#[test]
fn links_lead_to_pages_crates_or_nowhere() {
    let cases = [
        ("otel.md#names", Some("crate::guide::otel#names")),
        ("quick-start.md", Some("crate::guide::quick_start")),
        ("README.md", Some("crate::guide")),
        ("#there", Some("#there")),
        ("https://docs.rs", Some("https://docs.rs")),
        (
            "../crates/l0-otel/src/lib.rs",
            Some("https://docs.rs/l0-otel"),
        ),
        ("../crates/l0-bench/benches/scale.rs", None),
        ("../examples/README.md", None),
        ("pictures/live.png", None),
    ];
    for (target, expected) in cases {
        assert_eq!(on_docs_rs(target).as_deref(), expected, "{target}");
    }
}
