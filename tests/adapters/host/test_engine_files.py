"""The host's files as a process sees them that plays the engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.host.engine_files import EngineFiles
from ds01d.errors import Ds01Error

OURS = f"{os.getpid()}:{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}"


def test_a_path_is_looked_at_and_not_followed(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    folder.chmod(0o755)
    file.touch()
    link.symlink_to("folder")
    files = EngineFiles(OURS)
    status = files.read_status(str(folder))
    assert (status.uid, status.is_folder, status.others_write, status.link) == (
        *(os.getuid(), True, False, None),
    )
    folder.chmod(0o775)
    assert files.read_status(str(folder)).others_write
    assert not files.read_status(str(file)).is_folder
    assert files.read_status(str(link)).link == "folder"
    assert files.read_status("/").is_folder
    with pytest.raises(Ds01Error, match="No such file or directory"):
        files.read_status(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ("", "its process is not known"),
        ("4194305:1", "No such file or directory"),
        (f"{os.getpid()}:1", "it was just restarted"),
        (f"{os.getpid()}", "it was just restarted"),
    ],
    ids=["none", "no such process", "another start", "no start"],
)
def test_an_engine_that_is_not_there_is_unknown(instance: str, message: str) -> None:
    files = EngineFiles(instance)
    with pytest.raises(Ds01Error, match=message):
        files.read_status("/")
