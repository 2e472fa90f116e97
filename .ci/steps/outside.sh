# What the checks take from outside of the repository: recorded streams, and programs of others.
#
# A test whose variable is not set does nothing. Each of these can be set by you. Those with a default
# are found in a folder beside the repository, where there is one, or installed:
#
#   variable             what it is                                                  default
#   L0_TOOLS             the folder for installed tools                              ~/.cache/l0-tools
#   L0_PYTHON            a Python that reads what the tests wrote                    python3
#   L0_RECORDED_STREAMS  recorded streams of providers                               ../shared/streams
#   L0_REPLAY            the folder of `replay.py`, which serves them                ../shared/streams
#   L0_FIELD_CASES       inputs from bug reports, for the decoders                   ../shared/cases
#   L0_PEERS             the folder of `sentry_sink.py`, `otlp_recv.py` and others   ../shared/peers
#
# Where there is ../shared/peers, these are installed and set, too:
#
#   L0_STATSD            the npm package `statsd`
#   L0_AIMOCK            the npm package `@copilotkit/aimock`
#   L0_AXE               the file `axe.min.js` of the npm package `axe-core`
#   L0_PROMETHEUS        Debian's program `prometheus`, with `promtool`
#   L0_PUSHGATEWAY       Debian's program `prometheus-pushgateway`
#   L0_PEERS_PYTHON      a Python with `prometheus_client`
#   L0_OTLP_PYTHON       a Python with `opentelemetry-proto`
#   L0_RELAY_PYTHON      a Python with `sentry_relay`
#
# L0_CHROMIUM is the program `chromium`, which is never installed: apt-get install chromium.

tools=${L0_TOOLS:-$HOME/.cache/l0-tools}
shared=../shared

cargo_deny_version=0.20.2
gungraun_version=0.20.0
opentelemetry_proto_version=1.45.2
prometheus_client_version=0.26.0
sentry_relay_version=0.10.1
statsd_version=0.9.0
aimock_version=1.43.0
axe_version=4.14.1
litellm_version=1.110.2

# Whether the programs of others may be installed for the tests.
has_peers() {
  [[ -d $shared/peers ]]
}

# Sets the variables of the table, and installs what they name.
use_what_is_outside() {
  export L0_PYTHON=${L0_PYTHON:-python3}
  use_folder L0_RECORDED_STREAMS "$shared/streams"
  use_folder L0_REPLAY "$shared/streams"
  use_folder L0_FIELD_CASES "$shared/cases"
  if ! has_peers; then
    skip "tests against programs of others whose variables are not set: see .ci/steps/outside.sh"
    return
  fi
  use_folder L0_PEERS "$shared/peers"
  use_npm L0_STATSD statsd "$statsd_version"
  use_npm L0_AIMOCK @copilotkit/aimock "$aimock_version"
  use_service L0_PROMETHEUS prometheus
  use_service L0_PUSHGATEWAY prometheus-pushgateway
  use_python L0_PEERS_PYTHON prometheus_client "$prometheus_client_version"
  use_python L0_OTLP_PYTHON opentelemetry-proto "$opentelemetry_proto_version"
  use_python L0_RELAY_PYTHON sentry_relay "$sentry_relay_version"
  L0_PYTHON=$L0_PEERS_PYTHON
}

# use_folder VARIABLE FOLDER: sets the variable, if it is not set and the folder is there.
use_folder() {
  if [[ -z ${!1:-} && -d $2 ]]; then
    export "$1=$(cd "$2" && pwd)"
  fi
}

# use_npm VARIABLE PACKAGE VERSION: installs the package, if the variable is not set.
use_npm() {
  if [[ -z ${!1:-} ]]; then
    install_npm "$2" "$3"
    export "$1=$tools/npm/node_modules/$2"
  fi
}

# use_python VARIABLE PACKAGE VERSION: the variable names a Python that has the package.
use_python() {
  if [[ -z ${!1:-} ]]; then
    install_python_package "$2" "$3"
    export "$1=$tools/python/bin/python"
  fi
}

# use_service VARIABLE PROGRAM: a Debian package of the same name as its program and its service. Tests
# start the program themselves, so the service, which the package may start, is stopped.
use_service() {
  if [[ -z ${!1:-} ]]; then
    if ! command -v "$2" >/dev/null; then
      install_debian "$2"
      service "$2" stop >/dev/null 2>&1 || true
    fi
    export "$1=$2"
  fi
}

install_debian() {
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@" >/dev/null
}

# install_cargo PACKAGE VERSION: a program from crates.io.
install_cargo() {
  if [[ $("$tools/bin/$1" --version 2>/dev/null || true) != "$1 $2" ]]; then
    cargo install --quiet --locked --force "$1" --version "$2" --root "$tools"
  fi
}

# install_python_package NAME VERSION: into one environment for all of them.
install_python_package() {
  local python="$tools/python/bin/python"
  local version='import importlib.metadata as m, sys; print(m.version(sys.argv[1]))'
  if [[ $("$python" -c "$version" "$1" 2>/dev/null || true) != "$2" ]]; then
    python3 -m venv "$tools/python"
    "$python" -m pip install --quiet --disable-pip-version-check "$1==$2"
  fi
}

# install_npm PACKAGE VERSION. Optional dependencies are left out: the tests use none of them, and one of
# statsd's has to be compiled.
install_npm() {
  local manifest="$tools/npm/node_modules/$1/package.json"
  if ! grep -qs "\"version\": \"$2\"" "$manifest"; then
    npm install --silent --omit=optional --prefix "$tools/npm" "$1@$2"
  fi
}

# has_chromium WHAT: whether a page can be checked in a browser. Sets L0_AXE, if there is npm.
has_chromium() {
  if ! command -v "${L0_CHROMIUM:-chromium}" >/dev/null; then
    skip "$1: there is no chromium"
    return 1
  fi
  if [[ -z ${L0_AXE:-} ]] && command -v npm >/dev/null && has_peers; then
    install_npm axe-core "$axe_version"
    export L0_AXE="$tools/npm/node_modules/axe-core/axe.min.js"
  fi
}
