#!/usr/bin/env python3
"""Measures the figures of docs/performance.md and writes them into the page.

    docs/performance.py                   all sections; use an idle machine
    docs/performance.py tokens runs       only these sections
    docs/performance.py --list            prints the names of the sections
    docs/performance.py --print tokens    prints to the terminal, and leaves the page unchanged

Each section of the page is between `<!-- measured: NAME -->` and `<!-- end -->`. A section runs
one bench, and builds its table from the output of the bench or from criterion's results.
"""
import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def run(*words, cwd=ROOT, env=None):
    """Runs a program, and returns its output."""
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stdout + done.stderr
        sys.exit(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{said}")
    return done.stdout


def bench(name, *filters):
    """Runs a bench of l0-bench, and returns its output."""
    words = ["cargo", "bench", "--quiet", "--locked", "--package", "l0-bench", "--bench", name]
    return run(*words, "--", *filters) if filters else run(*words)


def table(header, rows):
    """Returns a Markdown table whose first column is text and whose others are numbers."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [header, *rows]]
    lines.insert(1, "|---" + "|--:" * (len(header) - 1) + "|")
    return "\n".join(lines)


def tables(printed):
    """Returns the output of a bench, which is tables with a sentence above each."""
    return printed.strip()


class Criterion:
    """Criterion's results of a group: the median in ns for each element, by row and size."""

    def __init__(self, group):
        self.rows, self.bytes = {}, {}
        for folder in (TARGET / "criterion").rglob("new/benchmark.json"):
            one = json.loads(folder.read_text())
            if one["group_id"] != group:
                continue
            estimates = json.loads((folder.parent / "estimates.json").read_text())
            median = estimates["median"]["point_estimate"]
            throughput = one["throughput"] or {}
            per = throughput.get("Elements") or 1
            size = one["value_str"] or 1
            size = int(size) if str(size).isdigit() else size
            name = one["function_id"] or one["group_id"]
            self.rows.setdefault(name, {})[size] = median / per
            self.bytes[name, size] = throughput.get("Bytes")

    def sizes(self):
        return sorted({size for row in self.rows.values() for size in row})

    def at(self, name, size=None):
        row = self.rows[name]
        return row[size if size is not None else max(row)]


def forget(group):
    """Removes the results of earlier measurements."""
    shutil.rmtree(TARGET / "criterion" / group, ignore_errors=True)


# ---- sections


def machine():
    cpu = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    rustc = run("rustc", "--version").split()[1]
    commit = run("git", "rev-parse", "--short", "HEAD").strip()
    date = time.strftime("%Y-%m-%d")
    return (
        f"{os.cpu_count()} virtual cores of {cpu}, {platform.system()}, Rust {rustc}, the default release "
        f"profile; commit {commit}, {date}."
    )


def base(name):
    return "bare, waiting" if name.endswith(", waiting") else "bare"


PEERS = {
    "prometheus alone": "`prometheus`",
    "metrics alone": "`metrics` with `metrics-exporter-prometheus`",
    "opentelemetry alone": "`opentelemetry` with its SDK",
    "tracing alone": "one `tracing` event for each token, discarded",
}


def token_rows(measured, names):
    sizes = measured.sizes()
    first = sizes[0]
    clock = measured.at("clock read", first)
    rows = []
    for name in names:
        over = (measured.at(name, first) - measured.at(base(name), first)) / clock
        cells = [f"{measured.at(name, size):.1f}" for size in sizes]
        rows.append((measured.at(name, first), [PEERS.get(name, name), f"{over:.2f}", *cells]))
    header = ["what", "beyond `bare`, in clock reads", *(f"ns at {size:,}" for size in sizes)]
    return table(header, [row for _, row in sorted(rows, key=lambda row: row[0])])


def tokens():
    forget("tokens")
    bench("tokens")
    measured = Criterion("tokens")
    waiting = [name for name in measured.rows if name.endswith(", waiting")]
    ready = [name for name in measured.rows if name not in [*waiting, *PEERS, "clock read"]]
    sizes = measured.sizes()
    clock = measured.at("clock read", sizes[0])
    return {
        "clock": f"A clock read (`Instant::now`) took {clock:.1f} ns.",
        "tokens": token_rows(measured, ready),
        "waiting": token_rows(measured, waiting),
        "alternatives": token_rows(measured, ["on", *PEERS]),
    }


def runs():
    forget("runs")
    forget("parts")
    bench("runs")
    measured, parts = Criterion("runs"), Criterion("parts")
    sizes = measured.sizes()
    rows = sorted(measured.rows, key=lambda name: measured.at(name, sizes[0]))
    header = ["what", *(f"ns for {size} token{'s' * (size > 1)}" for size in sizes)]
    of_runs = [[name, *(f"{measured.at(name, size):,.0f}" for size in sizes)] for name in rows]
    of_parts = [
        [name, f"{parts.at(name):,.0f}"]
        for name in sorted(parts.rows, key=lambda name: parts.at(name))
    ]
    return {"runs": table(header, of_runs), "parts": table(["part", "ns"], of_parts)}


def retries():
    forget("retries")
    bench("retries")
    measured = Criterion("retries")
    rows = [
        [name, f"{row.get(0, row.get(1)):,.0f}", f"{measured.at(name, 1):,.0f}"]
        for name, row in sorted(measured.rows.items(), key=lambda item: item[1].get(0, 0))
    ]
    header = ["what", "ns, nothing fails", "ns, the first request fails"]
    return {"retries": table(header, rows)}


FORMATS = {
    "chat": "Chat Completions",
    "responses": "Responses",
    "anthropic": "Anthropic",
    "gemini": "Gemini",
    "ollama": "Ollama",
}
DECODED = 20_000


def decode():
    forget("decode")
    bench("decode")
    measured = Criterion("decode")
    rows = []
    for (name, size), length in measured.bytes.items():
        nanos = measured.rows[name][size]
        size = size if isinstance(size, str) else "16 KiB a read"
        cells = [f"{length * 1e3 / nanos:,.0f}", f"{nanos / DECODED:,.0f}"]
        rows.append([FORMATS.get(name, f"`{name}`"), size, *cells])
    order = [*FORMATS.values()]
    rows.sort(key=lambda row: (order.index(row[0]) if row[0] in order else len(order), row[1]))
    return {"decode": table(["format", "reads", "MB/s", "ns a token"], rows)}


def expose():
    forget("expose")
    bench("prometheus", "expose")
    measured = Criterion("expose")
    rows = []
    for name, row in measured.rows.items():
        for size, nanos in row.items():
            rows.append([nanos, [name, str(size), f"{nanos / 1e6:.2f}"]])
    header = ["what", "size", "ms"]
    return {"expose": table(header, [row for _, row in sorted(rows)])}


def gateway():
    rows = []
    for line in bench("gateway").splitlines():
        if found := re.match(
            r"gateway/(\w+): (\d+) streams, (\d+) tokens/s each, (\d+) yielded: tasks ([\d.]+) % of a core, "
            r"feeder ([\d.]+) %, ([\d.]+) kB a stream, p50 (\d+) µs, p99 (\d+) µs, p99.9 (\d+) µs",
            line,
        ):
            row, streams, rate, handed, tasks, feeder, kilobytes, *delays = found.groups()
            rows.append([row, f"{tasks} %", f"{feeder} %", kilobytes, *delays])
    if not rows:
        sys.exit("the gateway printed no row")
    header = ["tasks", "share of a core", "feeder", "kB a stream", "p50, µs", "p99, µs", "p99.9, µs"]
    said = f"{int(streams):,} streams of {rate} tokens a second each:"
    return {"gateway": f"{said}\n\n{table(header, rows)}"}


def outside():
    manifest = ["--manifest-path", str(ROOT / "fixtures/user/Cargo.toml")]
    target = ["--target-dir", str(TARGET / "fixtures")]
    words = ["cargo", "run", "--quiet", "--locked", *manifest, *target]
    return {
        "outside": run(*words, "--release").strip(),
        "outside, thin": run(*words, "--profile", "thin").strip(),
        "outside, instructions": run(*words, "--release", "--", "--instructions").strip(),
        "outside, lines": run(*words, "--release", "--", "--lines").strip(),
    }


def reports():
    # With `duckdb`, if it is to be compared.
    python = os.environ.get("L0_PYTHON", sys.executable)
    printed = run(python, str(ROOT / ".ci/report-speed"))
    rows = []
    for line in printed.splitlines():
        if found := re.match(
            r"(\S.*?) +([\d.]+) s +(\d+) MB/s +([\d.]+) s of processor time +(\d+) MiB", line
        ):
            rows.append(list(found.groups()))
    rest = [line for line in printed.splitlines() if "quantiles within" in line]
    header = ["program", "seconds", "MB/s", "processor seconds", "MiB"]
    first = printed.splitlines()[0]
    return {"reports": "\n\n".join([f"{first}:", table(header, rows), *rest])}


def printed(name):
    """A section that is the unchanged output of a bench."""
    return lambda: {name.replace("_", " "): tables(bench(name))}


def instructions():
    runner = os.environ.get("GUNGRAUN_RUNNER", "gungraun-runner")
    rows = []
    for line in run(str(ROOT / ".ci/instructions"), runner).splitlines():
        if found := re.match(r"(\w+) (\w+) +[\d,]+ +([\d,]+) ", line):
            rows.append([found[1].replace("_", " "), found[2].replace("_", " "), found[3]])
    lines = ["| path | with | instructions |", "|---|---|--:|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return {"instructions": "\n".join(lines)}


def published():
    metadata = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))
    return [package for package in metadata["packages"] if package["publish"] != []]


def count_dependencies(name, *features):
    words = ["cargo", "tree", "--locked", "--package", name, "--edges", "normal", "--prefix", "none"]
    lines = run(*words, "--format", "{p}", *features).splitlines()
    return len({line.split(" (")[0] for line in lines if line}) - 1


def dependencies():
    rows = []
    for package in published():
        name = package["name"]
        counts = [count_dependencies(name), count_dependencies(name, "--all-features")]
        rows.append([f"`{name}`", *map(str, counts)])
    return {"dependencies": table(["crate", "default", "all"], rows)}


# An axum service that streams through L0. `EXTENDED` has the additions of each crate: to the
# manifest, to L0's options, and to the routes.
MANIFEST = """
[package]
name = "service"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
axum = {{ version = "0.8", default-features = false, features = ["http1", "tokio"] }}
tokio = {{ version = "1.49", default-features = false, features = ["macros", "net", "rt"] }}
futures-util = {{ version = "0.3", default-features = false }}
{dependencies}
"""
PLAIN = """
async fn answer() -> String {
    let mut stream = std::pin::pin!(source());
    let mut text = String::new();
    while let Some(token) = futures_util::StreamExt::next(&mut stream).await {
        text += token.unwrap_or_default();
    }
    text
}
fn routes() -> axum::Router {
    axum::Router::new().route("/", axum::routing::get(answer))
}
"""
THROUGH_L0 = """
fn routes() -> axum::Router {{
    let builder = l0_core::L0::builder().monitoring(l0_core::Monitoring::new());
    {options}
    let l0 = builder.build();
    axum::Router::new().route("/", axum::routing::get(async move || {{
        let mut run = l0.stream_from({source}).start();
        run.text().await.unwrap_or_default()
    }})){routes}
}}
"""
MAIN = """
fn source() -> impl futures_util::Stream<Item = std::io::Result<&'static str>> {
    futures_util::stream::iter(["Hello"].map(Ok))
}
#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    axum::serve(listener, routes()).await
}
"""
EXTENDED = {
    "l0-core": {},
    "l0-guardrails": {
        "options": "let builder = builder.guardrails(l0_guardrails::Guardrails::recommended())"
        ".drift(l0_guardrails::Drift::new());"
    },
    "l0-pricing": {
        "options": "let builder = builder.pricing(l0_pricing::PriceList::from_reader(&b\"{}\"[..]).unwrap());"
    },
    "l0-export": {
        "options": """let builder = builder.interceptor(l0_core::observe_fn(|_, event| {
            if let l0_core::Event::Finished { telemetry: Some(telemetry), .. } = event {
                let _ = l0_export::json::write_line(&mut std::io::stdout(), telemetry);
            }
        }));"""
    },
    "l0-prometheus": {
        "features": ["axum"],
        "options": """let collector = l0_prometheus::Collector::builder().build().unwrap();
        let builder = builder.interceptor(collector.interceptor());""",
        "routes": '.route("/metrics", l0_prometheus::metrics_route(collector))',
    },
    "l0-metrics": {"options": "let builder = builder.interceptor(l0_metrics::MetricsInterceptor::new());"},
    "l0-tracing": {"options": "let builder = builder.interceptor(l0_tracing::TracingInterceptor::new());"},
    "l0-otel": {
        "options": """let builder = builder.interceptor(l0_otel::OtelInterceptor::builder()
            .meter(opentelemetry::global::meter("service"))
            .tracer(opentelemetry::global::tracer("service")).build());""",
        "dependencies": 'opentelemetry = { version = "0.33", default-features = false, features = ["metrics", "trace"] }',
    },
    "l0-sentry": {
        "options": "let builder = builder.interceptor(l0_sentry::SentryInterceptor::new(l0_sentry::SentryConfig::new()));"
    },
    "l0-statsd": {
        "options": 'let builder = builder.interceptor(l0_statsd::StatsdInterceptor::builder("127.0.0.1:8125").build().unwrap());'
    },
    "l0-live": {
        "features": ["axum"],
        "options": "let live = l0_live::Live::new(); let builder = builder.interceptor(live.clone());",
        "routes": '.nest("/l0", l0_live::routes(live))',
    },
    "l0-providers": {
        "features": ["reqwest"],
        "options": """let client = l0_providers::openai::Client::from_env().unwrap();
        let request = l0_providers::openai::ChatRequest::new("gpt-4o").user("Hello");""",
        "source": "client.chat(&request)",
    },
    "l0-async-openai": {
        "options": """let client = l0_async_openai::Client::with_config(async_openai::config::OpenAIConfig::new());
        let request = async_openai::types::chat::CreateChatCompletionRequest::default();""",
        "source": "l0_async_openai::chat(&client, request.clone())",
        "dependencies": 'async-openai = { version = "0.43", default-features = false, features = ["chat-completion"] }',
    },
    "l0-genai": {
        "options": """let client = genai::Client::new().unwrap();
        let request = genai::chat::ChatRequest::from_user("Hello");""",
        "source": 'l0_genai::chat(&client, "gpt-4o", request.clone())',
        "dependencies": 'genai = { version = "0.7", default-features = false }',
    },
    "l0-rig": {
        "options": """let config = rig_core::providers::openai::OpenAIConfig::new("k");
        let model = config.client().chat("gpt-4o").erase();""",
        "source": 'l0_rig::completion(&model, rig_core::completion::CompletionRequest::new("Hello"))',
        "dependencies": 'rig-core = { version = "0.44", default-features = false, features = ["reqwest"] }',
    },
}


def build(folder, dependencies, body):
    """Builds a service, and returns the processor time in seconds and the size of the stripped
    program in bytes."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "Cargo.toml").write_text(MANIFEST.format(dependencies="\n".join(dependencies)))
    (folder / "src" / "main.rs").write_text(body + MAIN)
    target = folder / "target"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["cargo", "build", "--quiet", "--release", "--config", "profile.release.strip=true"]
    run(*words, "--target-dir", str(target), cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, (target / "release" / "service").stat().st_size


def sizes():
    """Measures the builds. The target folder already has the common crates, so each crate's
    seconds are its own."""
    crates = ROOT / "crates"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # The same versions as in this workspace.
        shutil.copy(ROOT / "Cargo.lock", folder / "Cargo.lock")
        seconds, plain = build(folder, [], PLAIN)
        rows.append(["axum alone", f"{seconds:.0f}", f"{plain / 1e6:.2f}", ""])
        core = f'l0-core = {{ path = "{crates}/l0-core" }}'
        for name, extended in EXTENDED.items():
            features = json.dumps(extended.get("features", []))
            own = [core, extended.get("dependencies", "")]
            if name != "l0-core":
                own.append(f'{name} = {{ path = "{crates / name}", features = {features} }}')
            source = "l0_core::source(|_attempt| async { std::io::Result::Ok(source()) })"
            body = THROUGH_L0.format(
                options=extended.get("options", ""),
                source=extended.get("source", source),
                routes=extended.get("routes", ""),
            )
            seconds, size = build(folder, own, body)
            more = size - plain
            rows.append([f"`{name}`", f"{seconds:.0f}", f"{size / 1e6:.2f}", f"{more / 1e6:+.2f}"])
    header = ["service", "extra build seconds", "MB", "beyond axum alone"]
    return {"sizes": table(header, rows)}


SECTIONS = {
    "machine": lambda: {"machine": machine()},
    "tokens": tokens,
    "outside": outside,
    "runs": runs,
    "retries": retries,
    "scale": printed("scale"),
    "otel runs": printed("otel_runs"),
    "decode": decode,
    "clients": printed("clients"),
    "gateway": gateway,
    "expose": expose,
    "reports": reports,
    "dependencies": dependencies,
    "sizes": sizes,
    "instructions": instructions,
}


def write(measured):
    page = PAGE.read_text()
    for name, text in measured.items():
        pattern = rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)"
        page, found = re.subn(pattern, lambda match: f"{match[1]}{text}\n{match[2]}", page, flags=re.S)
        if found != 1:
            sys.exit(f"{PAGE}: {found} sections named `{name}` instead of one")
    PAGE.write_text(page)


def main():
    parser = argparse.ArgumentParser(description="Measures the figures of docs/performance.md.")
    parser.add_argument("sections", nargs="*", help="the sections to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names of the sections")
    parser.add_argument("--print", action="store_true", help="print, and leave the page unchanged")
    arguments = parser.parse_args()
    if arguments.list:
        print(*SECTIONS, sep="\n")
        return
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    for name in arguments.sections or SECTIONS:
        start = time.monotonic()
        measured = SECTIONS[name]()
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        if arguments.print:
            for text in measured.values():
                print(text, end="\n\n")
        else:
            write(measured)


if __name__ == "__main__":
    main()
