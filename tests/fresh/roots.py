"""Pristine Debian systems, made by debootstrap and kept between runs.

Each holds what the smallest server has from which ds01d can be cloned, and what this host needs to
reach its package registries: its mirror of Debian, its options of apt, its certificates. None of
that is written anywhere but into those systems.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from simulation.cache import cache

SUITES: Final[Mapping[str, str]] = {"bookworm": "Debian 12", "trixie": "Debian 13"}
_SYSTEM: Final = "system"
_PACKAGES: Final = ("systemd", "python3", "git", "make", "ca-certificates", "sudo")
_ALSO: Final[Mapping[str, tuple[str, ...]]] = {
    # systemd's own tools load it at run time, and nothing depends on it.
    "trixie": ("libkmod2",),
}
_ARCHIVE: Final = "http://deb.debian.org/debian"
_CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")
_REACHING: Final = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
_REGISTRIES: Final = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "SSL_CERT_FILE"),
)


def pristine(suite: str, *, renew: bool = False) -> Path:
    """The root of such a system; made if there is none, or if it is to be renewed."""
    folder = place(suite) / _SYSTEM
    made_of = " ".join((*_PACKAGES, *_ALSO.get(suite, ())))
    stamp = folder.with_suffix(".packages")
    if renew or not folder.exists() or not stamp.exists() or stamp.read_text() != made_of:
        _install_debootstrap()
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            _make(suite, Path(work) / _SYSTEM)
            (Path(work) / _SYSTEM).rename(folder)
        stamp.write_text(made_of)
    return folder


def place(suite: str) -> Path:
    """The folder in which all is that is kept of a suite, and in which its machines are made."""
    return cache(f"fresh/{suite}")


def remove_leftovers(suite: str) -> None:
    """Remove copies that lost their machine with the host; for who holds the lock of `place`."""
    for left in place(suite).glob("ds01-machine-*"):
        shutil.rmtree(left, ignore_errors=True)


def registries() -> dict[str, str]:
    """The variables by which programs of this host reach its registries."""
    return {name: os.environ[name] for name in _REGISTRIES if name in os.environ}


def _install_debootstrap() -> None:
    if shutil.which("debootstrap") is None:
        _run("apt-get", "-q", "update")
        _run("apt-get", "-q", "install", "-y", "--no-install-recommends", "debootstrap")


def _make(suite: str, root: Path) -> None:
    archives = dict(_archives())
    archive = next((archives[name] for name in (suite, *SUITES) if name in archives), _ARCHIVE)
    security = next((at for name, at in archives.items() if name.endswith("-security")), None)
    packages = ",".join((*_PACKAGES, *_ALSO.get(suite, ())))
    # It is made anew after a power failure, so no file needs an fsync of its own.
    (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    (root / "etc/dpkg/dpkg.cfg.d/fresh").write_text("force-unsafe-io\n")
    _run("debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), archive)
    sources = [f"deb {archive} {name} main" for name in (suite, f"{suite}-updates")]
    if security is not None:
        sources.append(f"deb {security} {suite}-security main")
    (root / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
    (root / "etc/apt/apt.conf.d/90reach").write_text("".join(_apt_options()))
    for certificate in _CERTIFICATES.glob("*.crt"):
        shutil.copy(certificate, root / _CERTIFICATES.relative_to("/"))
    _run("chroot", str(root), "update-ca-certificates")
    # As after an installation: no lists, no packages, an identity of its own at the first boot.
    _run("chroot", str(root), "apt-get", "clean")
    for path in (root / "var/lib/apt/lists").glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (root / "etc/machine-id").write_text("")
    hosts = root / "etc/hosts"
    if not hosts.exists() or "localhost" not in hosts.read_text():
        hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")


def _archives() -> Iterator[tuple[str, str]]:
    """From where this host gets which suite of Debian, as far as it does."""
    shape = "$(RELEASE) $(REPO_URI) $(ORIGIN)"
    for row in _run("apt-get", "indextargets", "--format", shape, "Created-By: Packages").split(
        "\n"
    ):
        suite, _, rest = row.partition(" ")
        address, _, origin = rest.partition(" ")
        if origin == "Debian":
            yield suite, address


def _apt_options() -> Iterator[str]:
    """How this host's apt reaches its mirrors: proxies, certificates, what it checks."""
    for row in _run("apt-config", "dump").splitlines(keepends=True):
        if row.startswith(_REACHING):
            yield row


def _run(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    if done.returncode != 0:
        sys.stderr.write(f"{done.stdout[-4000:]}{done.stderr[-4000:]}")
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout
