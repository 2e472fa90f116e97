#!/usr/bin/env python3
"""Draws a load run as Prometheus shows it: writes load.png beside this file.

    cargo build -p l0-examples --bins
    python3 docs/pictures/load.py

Needs `prometheus` and `chromium` (both are packages of Debian). It starts the example `server`, a
Prometheus that scrapes it, and the example `load` for about two minutes, and takes a picture of
Prometheus' own graphs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
GRAPHS = [
    "sum by (model) (rate(l0_tokens_total[15s]))",
    "sum by (outcome) (rate(l0_streams_finished_total[15s])) > 0",
]
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: chat
    static_configs: [{{targets: ["{target}"]}}]
"""


def arguments():
    parser = argparse.ArgumentParser(description="Draws a load run as Prometheus shows it.")
    parser.add_argument("--prometheus", default="prometheus", help="the program")
    parser.add_argument("--chromium", default="chromium", help="the program")
    parser.add_argument("--seconds", type=int, default=110, help="how long the load lasts")
    parser.add_argument("--ports", type=int, default=19870, help="two ports from here on are used")
    return parser.parse_args()


def wait_for(url):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")


def example(name, *arguments, **more):
    # Without a key the server talks to a model server inside the process.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(KEYS)}
    command = ["cargo", "run", "-q", "-p", "l0-examples", "--bin", name, "--", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **more)


def load(server, seconds):
    """Load that rises and falls, so that there is something to see."""
    end, at_a_time = time.monotonic() + seconds, 5
    while time.monotonic() < end:
        run = example(
            "load", "--address", server, "--at-a-time", str(at_a_time), "--chats",
            str(8 * at_a_time), "--drop", "0.1", stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if run.wait() != 0:
            sys.exit("the load failed")
        at_a_time = at_a_time + 10 if at_a_time < 35 else 5


def main():
    options = arguments()
    server, prometheus = (f"127.0.0.1:{options.ports + index}" for index in range(2))
    picture = Path(__file__).with_name("load.png")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(CONFIG.format(target=server))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        programs = [
            example("server", "--listen", server, "--faults", "0.1", **quiet),
            subprocess.Popen(
                [
                    options.prometheus,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={prometheus}",
                ],
                **quiet,
            ),
        ]
        try:
            wait_for(f"http://{server}/metrics")
            wait_for(f"http://{prometheus}/-/ready")
            load(server, options.seconds)
            query = {}
            for index, expression in enumerate(GRAPHS):
                query |= {
                    f"g{index}.expr": expression,
                    f"g{index}.tab": "0",
                    f"g{index}.range_input": f"{options.seconds}s",
                    f"g{index}.step_input": "1",
                    f"g{index}.stacked": "1",
                }
            url = f"http://{prometheus}/graph?{urllib.parse.urlencode(query)}"
            subprocess.run(
                [
                    options.chromium, "--headless", "--no-sandbox", "--disable-gpu",
                    "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={folder}/browser",
                    "--window-size=1000,1565", "--virtual-time-budget=8000",
                    f"--screenshot={picture}", url,
                ],
                check=True, **quiet,
            )  # fmt: skip
        finally:
            for program in programs:
                program.terminate()
                program.wait()
    print(picture.name, picture.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
