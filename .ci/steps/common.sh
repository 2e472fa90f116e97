# Functions that several steps use.

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# skip SENTENCE: says now, and again at the end of the run, what was not checked and why.
skip() {
  skipped+=("$1")
  printf 'SKIPPED: %s\n' "$1"
}

# One line for each published crate: its name, its version, its features.
published_crates() {
  cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["publish"] != []:
        features = sorted(f for f in package["features"] if f != "default")
        print(package["name"], package["version"], *features)
'
}

target_folder() {
  cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# Checks that Cargo.lock is up to date, and downloads what it names: the other steps only build.
fetch() {
  cargo fetch --locked
}
