#!/usr/bin/env python3
"""gpu_allocator_v2.py: ds01d's allocator for scripts that call this file by its path.

    python3 gpu_allocator_v2.py allocate-external alice docker

Needs nothing but Python: it becomes ds01d's command, in whatever environment ds01d is installed.
That is found beside this file (also through a symbolic link), on PATH, or in /opt/ds01d;
DS01_ALLOCATOR names the `ds01-allocator` of another one.
"""

import os
import shutil
import sys
from pathlib import Path

_USUAL = "/opt/ds01d/bin/ds01-allocator"


def find_python() -> str:
    """The interpreter of ds01d's environment."""
    named = os.environ.get("DS01_ALLOCATOR")
    here = Path(__file__).resolve()  # ENV/share/ds01d/gpu_allocator_v2.py
    beside = here.parents[2] / "bin" / "ds01-allocator" if len(here.parents) > 2 else None
    places = [named] if named else [beside, shutil.which("ds01-allocator"), _USUAL]
    for place in places:
        if not place:
            continue
        # Commands on PATH are links into the environment; its interpreter is one out of it.
        python = Path(place).resolve().with_name("python3")
        if os.access(python, os.X_OK):
            return str(python)
    raise FileNotFoundError(
        "ds01-allocator was not found: install ds01d, or name it in DS01_ALLOCATOR"
    )


def main() -> None:
    """Become ds01d's command: the process stays, and with it who asked."""
    try:
        python = find_python()
        # -I: no module of the folder in which the caller happens to be.
        words = [python, "-I", "-m", "ds01d.cli.allocator.v2", *sys.argv[1:]]
        os.execv(python, words)  # noqa: S606 - that is the point
    except OSError as error:
        sys.exit(f"gpu_allocator_v2.py: {error}")


if __name__ == "__main__":
    main()
