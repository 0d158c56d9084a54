"""What tests preload is loaded from wherever the clone lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.preload import preloadable
from tests.verification.crash.stepping import library


def test_a_library_in_a_path_with_blanks_and_colons_is_preloaded(tmp_path: Path) -> None:
    folder = tmp_path / "a path: with all of it"
    folder.mkdir()
    placed = Path(shutil.copy(library(), folder))
    done = subprocess.run(
        (sys.executable, "-c", "print(open('/proc/self/maps').read())"),
        env={"LD_PRELOAD": preloadable(placed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(placed) in done.stdout
    assert done.stderr == ""
