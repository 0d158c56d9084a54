"""varlinkctl, systemd's client for Varlink, of Debian 13, with the libraries that it needs."""

import platform
import subprocess
from pathlib import Path
from typing import Final

from simulation.debian_packages import unpack_packages

_RELEASE: Final = "trixie"
_PACKAGES: Final = (
    *("systemd", "libsystemd-shared", "libc6", "libacl1", "libblkid1", "libcap2", "libcrypt1"),
    *("libmount1", "libssl3t64", "libpam0g", "libaudit1", "libcap-ng0", "libseccomp2"),
    *("libselinux1", "libpcre2-8-0", "zlib1g", "libzstd1"),
)


class Varlinkctl:
    """Runs varlinkctl. Raises `PackagesUnavailable` where it cannot be had."""

    def __init__(self) -> None:
        self._root = unpack_packages("varlinkctl", _RELEASE, _PACKAGES)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`varlinkctl WORDS`, to its end."""
        libraries = self._root / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        loader = next(Path(self._root, "usr").glob("lib*/ld-linux-*.so.*"), None)
        loader = loader or next(libraries.glob("ld-linux-*.so.*"))
        return subprocess.run(
            [
                *(str(loader), "--library-path", f"{libraries / 'systemd'}:{libraries}"),
                *(str(self._root / "usr" / "bin" / "varlinkctl"), *words),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
