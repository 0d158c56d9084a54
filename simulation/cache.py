"""Places outside the sources for what is compiled or downloaded once and used by many runs."""

import fcntl
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent / ".cache"


def cache(name: str) -> Path:
    """Return the folder for `name`, made if need be; git never sees it.

    For what is made from the sources: it goes with the checkout.
    """
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / ".gitignore").write_text("*\n", encoding="ascii")
    return folder


def download_cache(name: str) -> Path:
    """Return the folder for `name`, made if need be, outside the tree.

    For what is downloaded and is the same for every checkout: `make clean` and a new clone keep
    it. In $DS01D_CACHE, by default .cache/ds01d in the home of the account: tests have a HOME and
    an XDG_CACHE_HOME of their own.
    """
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    folder = Path(os.environ.get("DS01D_CACHE") or home / ".cache" / "ds01d") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else fills this folder: tests run in several processes."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
