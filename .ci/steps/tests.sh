# Steps that run tests and count instructions.

# Runs the README's test command, exactly as its readers do.
tests() {
  local command
  command=$(readme_command "cargo test")
  use_what_is_outside
  printf '$ %s\n' "$command"
  bash -euo pipefail -c "$command" | tee "$test_log"
  [[ $(count_tests) != *" 0 passed"* ]] || die "the README's test command ran no test"
}

# readme_command WORDS: the one line of README.md that begins so inside a fenced block.
readme_command() {
  awk -v words="$1" '
    /^(```|~~~)/ { fenced = !fenced; next }
    fenced && index($0, words " ") == 1 { print; found++ }
    END { exit found != 1 }
  ' README.md || die "README.md must have exactly one fenced line that begins with \`$1\`"
}

# Sums what `cargo test` prints for each test binary into one line.
count_tests() {
  awk '
    /^test result: / { passed += $4; failed += $6; skipped += $8 }
    END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped }
  ' "$test_log"
}

# Compares the instructions of the hot paths with the figures that the bench keeps. Only this step builds
# optimized code.
instructions() {
  if ! command -v valgrind >/dev/null; then
    if ! has_peers; then
      skip "instruction counts: there is no valgrind"
      return
    fi
    install_debian valgrind
  fi
  install_cargo gungraun-runner "$gungraun_version"
  .ci/instructions "$tools/bin/gungraun-runner"
}

# Runs the random orders of the tests a hundred times as often.
random_orders() {
  L0_INTERLEAVINGS=10000000 cargo test --package l0-core --all-features --test interleavings
}

# Checks what two backends make of the spans of the recorded streams.
converters() {
  use_folder L0_RECORDED_STREAMS "$shared/streams"
  if [[ -z ${L0_RECORDED_STREAMS:-} ]]; then
    skip "converters of backends: L0_RECORDED_STREAMS is not set"
    return
  fi
  L0_TOOLS="$tools" .ci/converters
}

# Compares our costs with those of LiteLLM from PyPI (500 MB), for the models of its price list.
litellm() {
  local folder="$tools/litellm"
  local costs="$target/litellm-costs.jsonl" prices="$target/litellm-prices.json"
  if [[ $(cat "$folder/version" 2>/dev/null) != "$litellm_version" ]]; then
    python3 -m venv --clear --without-pip "$folder"
    if ! python3 -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check \
      "litellm==$litellm_version"; then
      skip "costs of LiteLLM: version $litellm_version could not be installed"
      return
    fi
    printf '%s\n' "$litellm_version" >"$folder/version"
  fi
  "$folder/bin/python" crates/l0-pricing/tests/litellm/costs.py "$costs" "$prices"
  L0_LITELLM_COSTS="$costs" L0_LITELLM_PRICES="$prices" \
    cargo test --package l0-pricing --test litellm -- --nocapture
}

# Runs the tests whose number of cases can be set with the numbers that take long: half an hour.
long_tests() {
  use_what_is_outside
  # Other cases each time, which can be tried again.
  export PROPTEST_RNG_SEED=$RANDOM
  printf 'PROPTEST_RNG_SEED=%s\n' "$PROPTEST_RNG_SEED"
  L0_EVERY_LIMIT=1 cargo test --package l0-providers --all-features --test limits
  L0_SUMS_CASES=10000 cargo test --package l0-core --all-features --test sums
  L0_REDACTIONS=1000000 cargo test --package l0-core --test redaction
  L0_CONTENT_RUNS=1000000 cargo test --profile instructions --package l0-otel --test content no_canary
  L0_COMPARE_PAIRS=1000 cargo test --profile instructions --package l0-report --test compare_figures
  L0_LOAD=100000 cargo test --package l0-examples --all-features --test load
}
