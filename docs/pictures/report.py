#!/usr/bin/env python3
"""Takes a picture of the page that `l0-report html` writes, into report.png next to this file.

    cargo build -p l0-examples --features shutdown,load --bin shutdown --bin load && cargo build -p l0-report
    python3 docs/pictures/report.py

Needs `chromium` (Debian's package) and Python. The example `shutdown` serves chats and writes a
line for each, the example `load` sends requests for about two minutes, and the page shows these
runs. Some connections of the model break.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))
from browser import Browser  # noqa: E402

KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
WIDTH, HEIGHT = 1100, 880


def arguments():
    parser = argparse.ArgumentParser(description="Takes a picture of the page of a load run.")
    parser.add_argument("--seconds", type=int, default=120, help="the duration of the load")
    parser.add_argument("--listen", default="127.0.0.1:19880", help="the address of the server")
    return parser.parse_args()


def start(name, *arguments, **more):
    # Without a key, the server uses a model server inside the process.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(KEYS)}
    command = ["cargo", "run", "-q", "-p", "l0-examples", "--features", "shutdown,load", "--bin", name, "--", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **more)


def load(address, seconds):
    """Load that rises and falls, for a picture with variation."""
    end, at_a_time = time.monotonic() + seconds, 5
    while time.monotonic() < end:
        run = start(
            "load", "--address", address, "--at-a-time", str(at_a_time), "--chats",
            str(6 * at_a_time), "--drop", "0.1", stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if run.wait() != 0:
            sys.exit("the load failed")
        at_a_time = at_a_time + 10 if at_a_time < 35 else 5


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        lines, page = Path(folder, "l0.jsonl"), Path(folder, "report.html")
        server = start(
            "shutdown", "--listen", options.listen, "--file", str(lines), "--faults", "0.15", stdout=subprocess.PIPE, text=True
        )
        try:
            while "listening" not in server.stdout.readline():
                if server.poll() is not None:
                    sys.exit("the server has exited")
            load(options.listen, options.seconds)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate()
        # The file's name is shown on the page.
        program = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "l0-report"
        subprocess.run([program, "html", lines.name, "-o", page.name], cwd=folder, check=True)
        with Browser() as browser:
            tab = browser.tab(page.as_uri())
            tab.size(WIDTH, HEIGHT)
            tab.run("document.documentElement.style.overflow = 'hidden'")
            tab.until("charts are drawn", "document.querySelectorAll('[role=slider] svg').length")
            time.sleep(0.5)
            here = Path(__file__).parent
            tab.picture(str(here), "report.png")
    print(f"report.png: {(here / 'report.png').stat().st_size} bytes")


main()
