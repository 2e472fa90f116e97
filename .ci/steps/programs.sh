# Steps that build and run what users build and run.

# Checks each published crate alone: with no features, the default ones, all, and each of its features.
# A build of the whole workspace would lend a crate the features that another one asks for.
features() {
  local line words name feature
  for line in "${published[@]}"; do
    read -ra words <<<"$line"
    name=${words[0]}
    check_alone "$name" --no-default-features
    check_alone "$name"
    check_alone "$name" --all-features
    for feature in "${words[@]:2}"; do
      check_alone "$name" --no-default-features --features "$feature"
    done
  done
}

# Clippy, because `cargo check` cannot deny the warnings of one crate alone.
check_alone() {
  printf '%s\n' "$*"
  cargo clippy --quiet --package "$@" -- -D warnings
}

# Checks that public APIs name no more types of other crates than they are known to.
public_types() {
  .ci/foreign-types
}

# Builds each example with the features that its own command enables, and no more.
examples() {
  cargo build --package l0-examples --bins
  local program
  for program in examples/src/bin/*.rs; do
    program=$(basename "$program" .rs)
    if grep -qF "required-features = [\"$program\"]" examples/Cargo.toml; then
      printf -- '--bin %s --features %s\n' "$program" "$program"
      cargo check --quiet --package l0-examples --bin "$program" --features "$program"
    fi
  done
}

# Checks the code of the documents as packages of their own, with the dependencies that the documents name.
quick_starts() {
  .ci/quick-starts
}

# Tests programs as users have them, outside of the workspace, with clients of others.
user_programs() {
  local lock
  for lock in fixtures/*/Cargo.lock; do
    cargo test --quiet --locked --manifest-path "${lock%.lock}.toml" --target-dir "$target/fixtures"
  done
}

# Checks that the fuzz targets still build: nothing else builds them.
fuzz_targets() {
  if ! command -v c++ >/dev/null; then
    skip "fuzz targets: libfuzzer needs a C++ compiler"
    return
  fi
  cargo check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir "$target/fixtures"
}

# Runs every interleaving of small models of what threads share.
loom_models() {
  cargo run --quiet --locked --release --manifest-path loom/Cargo.toml --target-dir "$target/loom"
}

# Checks the page of l0-live in a browser: two minutes.
live_page() {
  has_chromium "the page of l0-live" || return 0
  cargo build --locked -p l0-live --features axum --example page
  cargo build --locked -p l0-examples --features server,load --bin server --bin load --bin faulty_model
  .ci/live-page "$target/debug"
}

# Checks the page that l0-report writes in a browser.
report_page() {
  has_chromium "the page of l0-report" || return 0
  cargo build --locked -p l0-report
  .ci/report-page "$target/debug/l0-report"
}
