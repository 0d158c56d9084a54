"""How the demonstration speaks: titles, remarks, commands with their true output, checks.

A command runs on a terminal of its own (a pty), so that it prints what a person would see. Knows
nothing of ds01d but the form of its log.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import termios
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

NARROW: Final = 80
WIDE: Final = 100
DEADLINE_S: Final = 60
MARGIN: Final = "  "
BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "1;31", "32", "33", "36"
LEVELS: Final = {"error": RED, "warning": YELLOW, "notice": GREEN}


class Failed(Exception):
    """What the demonstration claims is not so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that came to its end."""

    command: str
    output: str
    status: int


class Terminal:
    """Where everything is printed. Colours only on a terminal, and not if NO_COLOR is set."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        """Print on `stream`, between 80 and 100 columns wide."""
        self._stream = stream
        live = stream.isatty()
        self.colours = live and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((WIDE, 24)).columns if live else WIDE
        self.width = max(NARROW, min(WIDE, columns))

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line."""
        painted = f"\x1b[{style}m{text}\x1b[0m" if style and self.colours else text
        self._stream.write(f"{painted}\n")
        self._stream.flush()

    def title(self, text: str) -> None:
        """Begin a step."""
        self.line()
        self.line(f"── {text} ".ljust(self.width, "─"), BOLD)

    def say(self, text: str) -> None:
        """Remark on what follows."""
        self.line()
        for row in textwrap.wrap(text, self.width):
            self.line(row)

    def command(self, text: str, prompt: str = "$") -> None:
        """Show a command that is run. `prompt`: who runs it where, if that is not plain."""
        self.line()
        for number, row in enumerate(text.splitlines()):
            self.line(f"{MARGIN}{' ' * len(prompt) if number else prompt} {row}", CYAN)

    def ok(self, text: str) -> None:
        """State what was checked and found."""
        for number, row in enumerate(textwrap.wrap(text, self.width - 4)):
            self.line(f"{MARGIN}{' ' if number else '✓'} {row}", GREEN)

    def failed(self, text: str) -> None:
        """State what is not as it should be."""
        self.line()
        self.line(f"{MARGIN}✗ {text}", RED)

    def log(self, entry: Mapping[str, object]) -> None:
        """Show an entry of ds01d's log: the sentence, as journalctl shows it."""
        moment = datetime.fromisoformat(str(entry["timestamp"]).replace("Z", "+00:00"))
        head = f"{MARGIN}ds01d │ {moment.astimezone():%H:%M:%S} "
        hang = f"{MARGIN}      │          "
        rows = textwrap.wrap(
            str(entry["message"]),
            self.width,
            initial_indent=head,
            subsequent_indent=hang,
            break_on_hyphens=False,
        )
        for row in rows:
            self.line(row, LEVELS.get(str(entry["level"]), DIM))

    def run(
        self,
        command: str,
        *,
        env: Mapping[str, str],
        cwd: Path,
        prompt: str = "$",
        inside: Callable[[Mapping[str, str]], Sequence[str]] = lambda _: (),
    ) -> Ended:
        """Run a command of the shell, print it and what it prints, and tell how it ended.

        `inside`: what runs it elsewhere, with an environment.
        """
        self.command(command, prompt)
        size = {"COLUMNS": str(self.width - len(MARGIN)), "LINES": "50"}
        manner = {} if self.colours else {"NO_COLOR": "1", "TERM": "dumb"}
        whole = {**env, **size, **manner}
        printed = _on_terminal([*inside(whole), "sh", "-c", command], command, whole, cwd)
        for row in printed.output.splitlines():
            self.line(f"{MARGIN}{row}".rstrip())
        return printed


def _on_terminal(words: Sequence[str], command: str, env: Mapping[str, str], cwd: Path) -> Ended:
    # As files, since a signal may end us right after one was closed: they are closed only once.
    ours, theirs = (os.fdopen(end, "rb", buffering=0) for end in os.openpty())
    with ours, theirs:
        size = struct.pack("HHHH", int(env["LINES"]), int(env["COLUMNS"]), 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        process = subprocess.Popen(
            ["timeout", "--foreground", str(DEADLINE_S), *words],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        theirs.close()
        printed = bytearray()
        with process, suppress(OSError):  # how a terminal without a writer ends
            while chunk := ours.read(1 << 16):
                printed += chunk
        text = printed.decode(errors="replace").replace("\r\n", "\n")
        return Ended(command=command, output=text, status=process.returncode)
