#!/usr/bin/env python3
"""Draws the example `chat` in a terminal as it ran, into chat.svg next to this file.

    cargo build -p l0-examples --bin chat
    python3 docs/pictures/chat.py

Needs a Unix with Python 3 and nothing else. The program runs in its own terminal, its output is
recorded with the time, and the picture shows each piece when it arrived. Without animation, the
picture shows all of it.
"""

import html
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = 96
COMMAND = ["cargo", "run", "-q", "-p", "l0-examples", "--bin", "chat", "--", "--model", "gpt-4o"]
LETTER, LINE, MARGIN = 7.8, 18, 16
KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")


def record():
    """Returns the program's output as pairs of seconds and text."""
    root = Path(__file__).resolve().parents[2]
    # Without a key it uses the server inside the process.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(KEYS)}
    controller, terminal = pty.openpty()
    program = subprocess.Popen(
        COMMAND, cwd=root, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    pieces, start, pending = [], None, b""
    while True:
        try:
            data = os.read(controller, 4096)
        except OSError:  # the program has ended
            break
        if not data:
            break
        start = start or time.monotonic()
        pending += data
        try:
            text, pending = pending.decode(), b""
        except UnicodeDecodeError:  # an incomplete character
            continue
        pieces.append((time.monotonic() - start, text.replace("\r", "")))
    if program.wait() != 0:
        sys.exit("the program failed:\n" + "".join(text for _, text in pieces))
    return pieces


def words(pieces):
    """Returns pieces cut after each space and line end, so lines can be broken between them."""
    for at, text in pieces:
        word = ""
        for letter in text:
            word += letter
            if letter in " \n":
                yield at, word
                word = ""
        if word:
            yield at, word


def lay_out(pieces):
    """Returns lines of pairs of seconds and text, at most as wide as the terminal."""
    lines, column = [[]], 0
    for at, word in words(pieces):
        text = word.rstrip("\n")
        if column and column + len(text.rstrip()) > COLUMNS:
            lines.append([])
            column = 0
        if text:
            if lines[-1] and lines[-1][-1][0] == at:
                lines[-1][-1] = (at, lines[-1][-1][1] + text)
            else:
                lines[-1].append((at, text))
            column += len(text)
        if word.endswith("\n"):
            lines.append([])
            column = 0
    while lines and not lines[-1]:
        lines.pop()
    return lines


def draw(lines):
    prompt = "$ " + " ".join(COMMAND)
    width = round(COLUMNS * LETTER + 2 * MARGIN)
    height = (len(lines) + 2) * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        'aria-label="A chat in a terminal: the connection breaks, the answer starts over, '
        'and what was measured is printed">',
        "<style>text{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "fill:#d6deeb;white-space:pre}.p{fill:#7fdbca}.n{fill:#f78c6c}"
        # Starts hidden only with an animation, so a static picture shows it.
        "tspan{animation:t 1ms both}@keyframes t{from{opacity:0}}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#011627"/>',
        f'<text class="p" x="{MARGIN}" y="{MARGIN + 12}">{html.escape(prompt)}</text>',
    ]
    notice = False
    for number, line in enumerate(lines, 2):
        y = MARGIN + 12 + number * LINE
        # The program prints connections and retries in brackets.
        whole = "".join(text for _, text in line)
        notice |= whole.startswith("[")
        spans = "".join(
            f'<tspan style="animation-delay:{at:.2f}s">{html.escape(text)}</tspan>'
            for at, text in line
        )
        kind = ' class="n"' if notice else ""
        if spans:
            out.append(f'<text{kind} x="{MARGIN}" y="{y}" xml:space="preserve">{spans}</text>')
        notice &= not whole.endswith("]")
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    picture = Path(__file__).with_name("chat.svg")
    picture.write_text(draw(lay_out(record())))
    print(picture.name, picture.stat().st_size, "bytes")
