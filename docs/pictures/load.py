#!/usr/bin/env python3
"""Draws panels of the Grafana dashboard from a load run, into load.svg next to this file.

    cargo build -p l0-examples --features server,load --bin server --bin load --bin faulty_model
    python3 docs/pictures/load.py

Needs `prometheus` (Debian's package) and Python. Starts the examples `faulty_model` and
`server`, a Prometheus that scrapes the server, and the example `load` for about two minutes. Then it runs the queries of the panels
in docs/grafana/l0.json, and draws the results in the dashboard's colors.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docs/grafana/l0.json"
KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
# By title, in rows of two.
PANELS = [
    "Request rate by model",
    "Share of each outcome",
    "Time to first token",
    "Network errors by type",
    "Total tokens per second",
    "Attempts by result",
]
INTERVAL = "15s"
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: chat
    static_configs: [{{targets: ["{target}"]}}]
"""
# By Grafana's names.
COLORS = {
    "green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44", "orange": "#ff780a",
    "dark-orange": "#b34700", "blue": "#3274d9", "purple": "#a352cc",
}  # fmt: skip
# For series without a fixed color: different from all of the above.
PALETTE = ["#1b7f8c", "#7fc4c9", "#5a6f87", "#a98a55", "#d08cb6", "#1f3f77", "#9aa5b1", "#6b4f2a"]
WIDTH, PANEL_HEIGHT, MARGIN = 1000, 236, 14
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 34, 44


def arguments():
    parser = argparse.ArgumentParser(description="Draws panels of the dashboard from a load run.")
    parser.add_argument("--prometheus", default="prometheus", help="the program")
    parser.add_argument("--seconds", type=int, default=110, help="the duration of the load")
    parser.add_argument("--ports", type=int, default=19870, help="the first of two ports")
    return parser.parse_args()


# ---- the load


def wait_for(url):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")


def example(name, *arguments, variables=None, **more):
    # Without a key, the server uses a model server of this machine.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(KEYS)} | (variables or {})
    command = ["cargo", "run", "-q", "-p", "l0-examples", "--features", "server,load", "--bin", name, "--", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **more)


def load(server, seconds):
    """Load that rises and falls, for a picture with variation."""
    end, at_a_time = time.monotonic() + seconds, 5
    while time.monotonic() < end:
        run = example(
            "load", "--address", server, "--at-a-time", str(at_a_time), "--chats",
            str(8 * at_a_time), "--drop", "0.1", stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if run.wait() != 0:
            sys.exit("the load failed")
        at_a_time = at_a_time + 10 if at_a_time < 35 else 5


# ---- the data of the panels


def panels():
    by_title = {one["title"]: one for one in json.loads(DASHBOARD.read_text())["panels"]}
    return [by_title[title] for title in PANELS]


def filled_in(expression):
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", INTERVAL))


def ask(prometheus, expression, start, end):
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": 1})
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/query_range?{query}") as answer:
        return json.load(answer)["data"]["result"]


def lines(prometheus, panel, start, end):
    """Returns name -> the points of its line, by time."""
    found = {}
    for target in panel["targets"]:
        for series in ask(prometheus, filled_in(target["expr"]), start, end):
            labels = series["metric"]
            name = re.sub(r"{{(\w+)}}", lambda m: labels.get(m[1], ""), target["legendFormat"])
            points = {round(at - start): float(value) for at, value in series["values"]}
            points = {at: value for at, value in points.items() if math.isfinite(value)}
            if any(points.values()):
                found[name] = points
    return dict(sorted(found.items()))


def colors(panel, names):
    fixed = {
        one["matcher"]["options"]: COLORS[one["properties"][0]["value"]["fixedColor"]]
        for one in panel["fieldConfig"]["overrides"]
    }
    rest = iter(PALETTE)
    return {name: fixed.get(name) or next(rest) for name in names}


def text_of(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:g}"


def round_up(value):
    """Rounds up to a number that is round, as are its quarters."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(one * power for one in (1, 2, 3, 4, 6, 8, 10) if one * power >= value)


# ---- the picture


def draw(panel, found, seconds, x, y, width):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom["stacking"]["mode"] != "none"
    below, shapes, top = {}, [], 0.0
    for name, points in found.items():
        upper = {at: value + below.get(at, 0.0) * stacked for at, value in points.items()}
        shapes.append((name, sorted(upper), upper, dict(below)))
        if stacked:
            below |= upper
        top = max([top, *upper.values()])
    top = panel["fieldConfig"]["defaults"].get("max") or round_up(top or 1.0)
    w, h = width - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def place(at, value):
        return f"{x + LEFT + at / seconds * w:.1f},{y + TOP + h - min(value / top, 1.0) * h:.1f}"

    unit_text = unit.removeprefix("suffix: ") if unit.startswith("suffix: ") else ""
    title = escape(panel["title"]) + (f", {unit_text}" if unit_text else "")
    out = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{PANEL_HEIGHT}" rx="4" class="panel"/>',
        f'<text x="{x + 12}" y="{y + 21}" class="title">{title}</text>',
    ]
    for part in range(5):
        line = y + TOP + h - part / 4 * h
        out.append(f'<path d="M{x + LEFT} {line:.1f}h{w}" class="grid"/>')
        value = text_of(top * part / 4, unit)
        out.append(f'<text x="{x + LEFT - 6}" y="{line + 4:.1f}" class="axis" text-anchor="end">{value}</text>')
    for at in range(0, seconds + 1, 30):
        left = x + LEFT + at / seconds * w
        out.append(f'<text x="{left:.1f}" y="{y + TOP + h + 15}" class="axis" text-anchor="middle">{at} s</text>')
    color = colors(panel, found)
    for name, times, upper, lower in shapes:
        line = " ".join(place(at, upper[at]) for at in times)
        if stacked:
            back = " ".join(place(at, lower.get(at, 0.0)) for at in reversed(times))
            out.append(f'<polygon points="{line} {back}" fill="{color[name]}" fill-opacity="0.75"/>')
        else:
            out.append(f'<polyline points="{line}" fill="none" stroke="{color[name]}" stroke-width="2"/>')
    left = x + 12
    for name in found:
        out.append(f'<rect x="{left}" y="{y + PANEL_HEIGHT - 19}" width="10" height="10" fill="{color[name]}"/>')
        out.append(f'<text x="{left + 14}" y="{y + PANEL_HEIGHT - 10}" class="legend">{escape(name)}</text>')
        left += 30 + round(6.6 * len(name))
    return out


def picture(answers, seconds):
    width = (WIDTH - MARGIN) // 2
    height = (len(answers) + 1) // 2 * (PANEL_HEIGHT + MARGIN) - MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        "<style>text{font-family:Helvetica,Arial,sans-serif;fill:#24292e}.title{font-size:13px;font-weight:bold}"
        ".axis,.legend{font-size:11px}.axis{fill:#6a737d}.grid{stroke:#e1e4e8;fill:none}"
        ".panel{fill:#fff;stroke:#d1d5da}</style>",
    ]
    for index, (panel, found) in enumerate(answers):
        x, y = index % 2 * (width + MARGIN), index // 2 * (PANEL_HEIGHT + MARGIN)
        out += draw(panel, found, seconds, x, y, width)
    return "\n".join([*out, "</svg>\n"])


def main():
    options = arguments()
    server, prometheus = (f"127.0.0.1:{options.ports + index}" for index in range(2))
    file = Path(__file__).with_name("load.svg")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(CONFIG.format(target=server))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        model = example("faulty_model", "--faults", "0.1", stdout=subprocess.PIPE, text=True)
        address = model.stdout.readline().split()[-1]
        programs = [
            model,
            example("server", variables={"LISTEN": server, "OPENAI_BASE_URL": address}, **quiet),
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
            end = time.time()
            start = end - options.seconds
            answers = [(one, lines(prometheus, one, start, end)) for one in panels()]
        finally:
            for program in programs:
                program.terminate()
                program.wait()
    file.write_text(picture(answers, options.seconds), encoding="utf-8")
    print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
