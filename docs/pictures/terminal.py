#!/usr/bin/env python3
"""Draws `l0-report` in a terminal, into summary.svg and compare.svg next to this file.

    cargo build -p l0-report && cargo build -p l0-examples --bin ab_testing --features ab_testing
    cargo build -p l0-bench --example telemetry_lines
    python3 docs/pictures/terminal.py

Needs only Python 3. The summary shows synthetic runs, the same each time. The comparison shows
the runs of the example `ab_testing`, whose model server has a faster and a slower model.
"""

import html
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LETTER, LINE, MARGIN = 7.8, 18, 16
KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
# The form of a verdict.
COLORS = {"worse": "w", "better": "b"}


def cargo(*arguments, folder, codes=(0,)):
    """Returns the output of a program of the workspace."""
    # Without a key, the example uses a server inside the process.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(KEYS)}
    command = ["cargo", "run", "-q", "--manifest-path", ROOT / "Cargo.toml", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode not in codes:
        sys.exit(f"{command}: exit code {ran.returncode}\n{ran.stderr}")
    return ran.stdout


def draw(command, text, label):
    lines = [f"$ {command}", "", *(line.rstrip() for line in text.rstrip().splitlines())]
    width = round(max(map(len, lines)) * LETTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{html.escape(label)}">',
        "<style>text{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "fill:#d6deeb;white-space:pre}.p{fill:#7fdbca}.h{fill:#82aaff}.w{fill:#f78c6c}.b{fill:#addb67}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#011627"/>',
    ]
    before = ""
    for number, line in enumerate(lines):
        if line:
            # A block begins after an empty line.
            kind = "p" if number == 0 else "h" if not before else ""
            last = line.rsplit("  ", 1)[-1]
            kind = COLORS.get(last, kind)
            kind = f' class="{kind}"' if kind else ""
            y = MARGIN + 12 + number * LINE
            out.append(f'<text{kind} x="{MARGIN}" y="{y}" xml:space="preserve">{html.escape(line)}</text>')
        before = line
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    with tempfile.TemporaryDirectory() as folder:
        lines = ["-p", "l0-bench", "--example", "telemetry_lines", "--"]
        Path(folder, "l0.jsonl").write_text(cargo(*lines, "3000", folder=folder))
        cargo("-p", "l0-examples", "--features", "ab_testing", "--bin", "ab_testing", "--", "ab.jsonl", "160", folder=folder)
        condition = "p95(time_to_first_token) > +10%"
        shown = ["p50(time_to_first_token)", "p95(time_to_first_token)", "mean(duration)", "share(failures)",
                 "mean(tokens.per_second)"]  # fmt: skip
        compare = ["compare", "--arms", "ab_test=B,A", "ab.jsonl", "--fail-if", condition]
        pictures = {
            "summary.svg": (
                "l0-report l0.jsonl", ["l0.jsonl"], [],
                "A summary of 3,000 runs in a terminal: outcomes, totals, attempts, errors, times and the slowest runs",
            ),
            "compare.svg": (
                f"l0-report compare --arms ab_test=B,A ab.jsonl --fail-if '{condition}' --show ...",
                compare, [word for name in shown for word in ("--show", name)],
                "A comparison of two arms in a terminal: each number has a change, an interval and a verdict",
            ),
        }  # fmt: skip
        for name, (command, arguments, more, label) in pictures.items():
            report = ["-p", "l0-report", "--", *arguments, *more]
            text = cargo(*report, folder=folder, codes=(0, 1))
            picture = Path(__file__).with_name(name)
            picture.write_text(draw(command, text, label))
            print(picture.name, picture.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
