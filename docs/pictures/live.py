#!/usr/bin/env python3
"""Takes a picture of the page of live runs while the example server is under load, into live.png
next to this file.

    cargo build -p l0-examples --features server,load --bin server --bin load --bin faulty_model
    python3 docs/pictures/live.py

Needs Chromium (Debian's package, or the program in L0_CHROMIUM) and Python. Starts the example
`faulty_model`, with some connections that break and some answers that stall, the example `server`
as its client, and the example `load`.
The picture is taken of the page itself, at a moment with something to see.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))
from browser import Browser, Program, Services  # noqa: E402

LOAD = ["--chats", "1000000", "--at-a-time", "6", "--drop", "0.2"]
CONNECTED = "document.getElementById('link').textContent === 'connected'"
# Some live runs stall and one waits for a retry; one ended run was retried.
WORTH_IT = """(() => {
    const live = latest.live, ended = latest.finished.slice(0, 3);
    const stalled = live.filter((run) => run.stalled).length;
    const worth = live.length >= 5 && (stalled === 1 || stalled === 2)
        && live.some((run) => run.state === 'backing_off') && ended.some((run) => run.attemptCount > 1);
    if (worth) events.close(); // from here on nothing moves
    return worth;
})()"""


def arguments():
    parser = argparse.ArgumentParser(description="Takes a picture of the page of live runs.")
    parser.add_argument("--target", default=ROOT / "target/debug", help="the folder with the built examples")
    parser.add_argument("--seconds", type=int, default=120, help="the longest wait for such a moment")
    return parser.parse_args()


def main():
    options = arguments()
    file = Path(__file__).with_name("live.png")
    with Browser() as browser:
        with Services(options.target, faults=0.25, stalls=0.06, token_timeout=6) as server:
            load = [f"{options.target}/load", *LOAD, "--address", server.host]
            with Program(*load, serves=False):
                tab = browser.tab(f"http://{server.host}/l0")
                tab.size(1200, 830)
                tab.call("Emulation.setScrollbarsHidden", hidden=True)
                tab.until("the page is connected", CONNECTED)
                time.sleep(15)
                tab.until("there is something to see", WORTH_IT, options.seconds)
                tab.picture(file.parent, file.name)
    print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
