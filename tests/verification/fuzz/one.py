"""Fuzz one target, guided by coverage: `python -m tests.verification.fuzz.one NAME FLAGS…`.

The flags are libFuzzer's. Never returns: libFuzzer ends the process, with 77 for a finding.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ds01d"]):
    from tests.verification.fuzz.targets import TARGETS


def main() -> None:
    name, *flags = sys.argv[1:]
    # How libFuzzer starts this program once more to merge.
    again = f"{sys.executable} -m tests.verification.fuzz.one {name}"
    atheris.Setup([again, *flags], TARGETS[name].try_)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
