# Steps that read the code without running it.

format() {
  local manifest
  for manifest in Cargo.toml loom/Cargo.toml fixtures/*/Cargo.toml; do
    cargo fmt --all --check --manifest-path "$manifest"
  done
}

# The lints of the manifest only warn, which leaves work in progress alone. Here they are errors.
clippy() {
  cargo clippy --workspace --all-targets --all-features -- -D warnings
}

# Checks that each crate forbids unsafe code, by the workspace's lints or by its own.
unsafe_code() {
  local manifest
  for manifest in crates/*/Cargo.toml */Cargo.toml fixtures/*/Cargo.toml; do
    grep -A1 -E '^\[lints(\.rust)?\]$' "$manifest" |
      grep -qE '^(workspace = true|unsafe_code = "forbid")$' || die "$manifest does not forbid unsafe code"
  done
  grep -q '^unsafe_code = "forbid"$' Cargo.toml || die "Cargo.toml does not forbid unsafe code"
}

# Builds the docs, and checks their links. rustdoc links to a crate only if its folder exists, but cargo documents
# crates in any order, and removes the folder of a crate while it documents it. So all folders are made first, and
# crates are documented one by one.
docs() {
  local line name
  rm -rf "$target/doc"
  for line in "${published[@]}"; do
    read -r name _ <<<"$line"
    mkdir -p "$target/doc/${name//-/_}"
  done
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --jobs 1
  .ci/doc-links "$target/doc"
}

english() {
  .ci/english
}

# Checks the rules, alerts and dashboard: names by our own script, the rest by promtool.
prometheus_files() {
  .ci/prometheus-files
  if ! command -v promtool >/dev/null; then
    skip "Prometheus rules and alerts: there is no promtool (Debian's package prometheus)"
    return
  fi
  local expressions="$target/prometheus-expressions.yml"
  .ci/prometheus-files --expressions "$expressions"
  promtool check rules "$expressions" docs/prometheus/rules.yml docs/prometheus/alerts.yml
  promtool test rules docs/prometheus/rules_test.yml docs/prometheus/alerts_test.yml
}
