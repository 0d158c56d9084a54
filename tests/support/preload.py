"""Libraries for LD_PRELOAD, wherever this clone lies."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import tempfile
from pathlib import Path


@functools.cache
def preloadable(library: Path) -> str:
    """A path of the library that the dynamic linker can preload, as long as this process lives.

    It takes blanks and colons for separators of a list (ld.so(8)) and knows no way to quote them.
    """
    if not re.search(r"[\s:]", str(library)):
        return str(library)
    folder = Path(tempfile.mkdtemp(prefix="ds01d-preload-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = folder / library.name
    link.symlink_to(library)
    return str(link)
