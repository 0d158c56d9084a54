"""The lab's own logrotate file beside the package's: what doctor says is what logrotate does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ds01d.cli.doctor.logrotate_checks import check_logrotate
from ds01d.cli.doctor.source_checks import Health
from tests.support.scripts import ROOT

PROGRAM = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs logrotate")
LOGS = ("container-operations.log", "gpu-allocations.log")
BLOCK = "{\n su root root\n weekly\n missingok\n}\n"

FILES = {
    "before, by a glob": ("ds01", "/var/log/ds01/*.log " + BLOCK),
    "after, by a glob": ("lab", "/var/log/ds01/*.log " + BLOCK),
    "one of them by name": ("ds01-logs", "/var/log/ds01/gpu-allocations.log\n" + BLOCK),
    "in quotation marks": ("lab", '"/var/log/ds01/container-operations.log" /var/log/x ' + BLOCK),
    "behind a script with braces": (
        "lab",
        "/var/log/other {\n postrotate\n  x=${y}; { echo /var/log/z; }\n endscript\n}\n"
        "/var/log/ds01/gpu-allocations.log " + BLOCK,
    ),
    "duplicates ignored": ("a", "/var/log/ds01/*.log {\n su root root\n ignoreduplicates\n}\n"),
    "in a comment": ("lab", "# /var/log/ds01/*.log\n/var/log/other " + BLOCK),
    "in a script": (
        "lab",
        "/var/log/x {\n postrotate\n  touch /var/log/ds01/gpu-allocations.log\n endscript\n}\n",
    ),
    "deeper": ("lab", "/var/log/*.log /var/log/ds01/*/*.log " + BLOCK),
    "put aside": ("lab.dpkg-old", "/var/log/ds01/*.log " + BLOCK),
    "none": ("lab", ""),
}


@pytest.mark.parametrize("case", FILES)
def test_what_it_says_is_what_logrotate_does(tmp_path: Path, case: str) -> None:
    """Its own files, moved to a folder of the test, read by the real logrotate."""
    logs = tmp_path / "log" / "ds01"
    folder = tmp_path / "etc"
    logs.mkdir(parents=True)
    folder.mkdir()
    for name in LOGS:
        (logs / name).touch()
    name, text = FILES[case]
    ours = (ROOT / "debian" / "ds01d.logrotate").read_text().replace("su root ds01", "su root root")
    for file, content in ((name, text), ("ds01d", ours)):
        (folder / file).write_text(content.replace("/var/log/", f"{tmp_path}/log/"))
        (folder / file).chmod(0o644)
    settings = tmp_path / "logrotate.conf"
    settings.write_text(f"include {folder}\n")
    done = subprocess.run(
        [str(PROGRAM), "-d", "-s", str(tmp_path / "state"), str(settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    skipped = set(re.findall(r"found error in file (\S+), skipping", done.stderr))
    checks = list(check_logrotate([logs / log for log in LOGS], folder))
    told = {
        Path(match[1]).name
        for check in checks
        if check.health is Health.WARN
        and (match := re.search(r"skips all of (\S+)$", check.detail))
    }
    assert told == skipped
    assert bool(skipped) == (
        case
        not in {"duplicates ignored", "in a comment", "in a script", "deeper", "put aside", "none"}
    )
    assert all(check.fix for check in checks if check.health is Health.WARN)
