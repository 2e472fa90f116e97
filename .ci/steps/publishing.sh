# Steps that check what would be published, and what it depends on.

# Checks that what would be uploaded builds without the rest of the repository. A file that is included from
# outside of a crate's folder is missing there. Cargo's own verification is not used: it keeps the unpacked
# sources of a dependency from one run to the next as long as the version is the same.
packages() {
  local line name version packages=()
  local unpacked="$target/package-check"
  rm -rf "$unpacked"
  mkdir -p "$unpacked"

  # Whether crates.io would take them, in which order: a dry run keeps no files that may be relied on.
  cargo publish --workspace --dry-run --quiet --locked --no-verify --allow-dirty
  for line in "${published[@]}"; do
    read -r name _ <<<"$line"
    packages+=(--package "$name")
  done
  cargo package --quiet --locked --no-verify --allow-dirty "${packages[@]}"
  {
    printf '[workspace]\nresolver = "3"\nmembers = ["*"]\n[patch.crates-io]\n'
    for line in "${published[@]}"; do
      read -r name version _ <<<"$line"
      # -m: files as new as this run. Cargo takes older ones for those that it checked before.
      tar -xmzf "$target/package/$name-$version.crate" -C "$unpacked"
      printf '%s = { path = "%s" }\n' "$name" "$name-$version"
    done
  } >"$unpacked/Cargo.toml"
  cp Cargo.lock "$unpacked/"
  cargo check --quiet --all-features \
    --manifest-path "$unpacked/Cargo.toml" --target-dir "$target"
}

# Checks licences, duplicate versions, wildcards, banned crates and sources, and yanked crates in each lock file.
dependencies() {
  install_cargo cargo-deny "$cargo_deny_version"
  local deny="$tools/bin/cargo-deny"
  "$deny" --locked check bans licenses sources

  # The check for yanked crates is part of the check for advisories, which needs a database: an empty one.
  local none="$target/no-advisories" lock
  rm -rf "$none"
  mkdir -p "$none/origin/crates/none"
  printf '```toml\n[advisory]\nid = "RUSTSEC-2000-0001"\npackage = "none"\ndate = "2000-01-01"\n%s\n```\n\n# None\n' \
    $'[versions]\npatched = [">= 1.0.0"]' >"$none/origin/crates/none/RUSTSEC-2000-0001.md"
  git -C "$none/origin" init --quiet --initial-branch main
  git -C "$none/origin" add crates
  git -C "$none/origin" -c user.name=none -c user.email=none@example.invalid commit --quiet --message none
  for lock in Cargo.lock */Cargo.lock fixtures/*/Cargo.lock; do
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$none/origin.insteadOf" \
      GIT_CONFIG_VALUE_0=https://advisories.invalid/none \
      "$deny" --locked --manifest-path "${lock%.lock}.toml" --config "$root/deny.toml" check advisories
  done
}

# Builds each published crate with the oldest Rust that its manifest declares. The features that need a later
# one are in `package.metadata.rust-version`.
minimum_rust() {
  local minimums name version features
  minimums=$(minimum_versions)
  while read -r name version features; do
    if ! install_rust "$version"; then
      skip "$name with Rust $version: this toolchain could not be installed"
      continue
    fi
    printf '%s with Rust %s, features: %s\n' "$name" "$version" "${features:-none}"
    with_rust "$version" check --quiet --locked --target-dir "$target/rust-$version" \
      --package "$name" --no-default-features --features "$features"
  done <<<"$minimums"
}

# One line for each published crate and each of its minimum versions: name, version, features.
minimum_versions() {
  cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
numbers = lambda version: [int(number) for number in version.split(".")]
for package in json.load(sys.stdin)["packages"]:
    if package["publish"] != []:
        first = package["rust_version"]
        later = (package["metadata"] or {}).get("rust-version", {})
        for version in sorted({first, *later.values()}, key=numbers):
            enough = lambda feature: numbers(later.get(feature, first)) <= numbers(version)
            print(package["name"], version, ",".join(sorted(filter(enough, package["features"]))))
'
}

# install_rust VERSION: by rustup, in a folder of its own, or from a Debian package, unpacked.
install_rust() {
  local folder="$tools/rust-$1"
  [[ -x $folder/usr/bin/rustc ]] && return
  [[ -n $(compgen -G "$tools/rust/toolchains/$1.0-*") ]] && return
  if command -v rustup >/dev/null &&
    RUSTUP_HOME="$tools/rust" rustup --quiet toolchain install "$1.0" --profile minimal --no-self-update >/dev/null; then
    return
  fi
  local version package packages=()
  version=$(apt-cache madison rustc-web 2>/dev/null | awk -v start="$1." 'index($3, start) == 1 { print $3; exit }')
  [[ -n $version ]] || return 1
  for package in rustc-web cargo-web libstd-rust-web-dev "libstd-rust-web-$1"; do
    packages+=("$package=$version")
  done
  # The libraries that these load and that a system without them lacks.
  packages+=("$(apt-cache show "libstd-rust-web-$1=$version" | grep -oE -m 1 'libllvm[0-9]+')")
  packages+=(libpcre3 libhttp-parser2.9 libssh2-1)
  rm -rf "$folder.part"
  mkdir -p "$folder.part"
  (
    cd "$folder.part"
    apt-get -qq download "${packages[@]}" 2>/dev/null
    for package in *.deb; do
      dpkg -x "$package" .
    done
    rm -- *.deb
  ) || return 1
  mv "$folder.part" "$folder"
}

# with_rust VERSION ARGUMENTS...: runs cargo of that version.
with_rust() {
  local folder="$tools/rust-$1" libraries
  if [[ -x $folder/usr/bin/rustc ]]; then
    libraries=$(printf ':%s' "$folder"/{usr/lib,lib}/x86_64-linux-gnu "$folder"/usr/lib/llvm-*/lib)
    LD_LIBRARY_PATH=${libraries#:} RUSTC="$folder/usr/bin/rustc" "$folder/usr/bin/cargo" "${@:2}"
  else
    RUSTUP_HOME="$tools/rust" cargo "+$1.0" "${@:2}"
  fi
}

# Builds each published crate with the lowest versions that its manifest allows for its direct dependencies.
minimal_versions() {
  local copy="$target/minimal-versions" line name
  rm -rf "$copy"
  mkdir -p "$copy"
  git ls-files -z | tar -c --null -T - | tar -x -C "$copy"
  RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions --manifest-path "$copy/Cargo.toml"
  for line in "${published[@]}"; do
    read -r name _ <<<"$line"
    printf '%s\n' "$name"
    cargo check --quiet --locked --manifest-path "$copy/Cargo.toml" --target-dir "$target" \
      --package "$name" --all-features
  done
}
