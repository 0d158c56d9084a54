"""The environment that tests run in, and all that they start: defined here, not inherited.

What whoever starts the tests happens to have set hides faults and makes some: PYTHONUNBUFFERED,
DOCKER_HOST, NOTIFY_SOCKET, SUDO_UID, COLUMNS, pip's settings, a home with a client configuration.
Only the variables that `is_inherited` names come from there; HOME is empty, and what pip downloads
lies beside what else is kept between runs.

DS01D_TEST_ENVIRONMENT chooses one of `ENVIRONMENTS`: "plain" unless it says "foreign", which is
what a user may have who lives far from a build server.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulation.cache import download_cache

ROOT: Final = Path(__file__).parents[2]
CHOICE: Final = "DS01D_TEST_ENVIRONMENT"

_INHERITED: Final = re.compile(
    # where programs and room for temporary files are
    r"PATH|TMPDIR"
    # how packages are reached: proxies, certificates, an index
    r"|(?i:(https?|ftp|all|no)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_(INDEX_URL|CERT|PROXY|TRUSTED_HOST|DEFAULT_TIMEOUT|RETRIES)"
    # what is meant for the tests themselves, their runners and their measuring
    rf"|CI|{CHOICE}|DS01D_(HYPOTHESIS|PROOFS|TESTS|ENGINE|CACHE|WRITERS_\w+|RACE_\w+|SOAK_\w+)|PYTEST_\w+|COV\w+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Variables that differ, and the umask."""

    variables: Mapping[str, str]
    umask: int


ENVIRONMENTS: Final[Mapping[str, Kind]] = {
    "plain": Kind(variables={"LANG": "C.UTF-8"}, umask=0o022),
    # A locale that is generated hardly anywhere, as ssh carries it to a server.
    "foreign": Kind(variables={"LANG": "de_DE.UTF-8", "TZ": "Europe/Berlin"}, umask=0o077),
}


def is_inherited(name: str) -> bool:
    """Whether tests get this variable from whoever starts them."""
    return _INHERITED.fullmatch(name) is not None


def defined(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """The whole environment. Raises KeyError for a kind that does not exist."""
    return {
        **{name: value for name, value in inherited.items() if is_inherited(name)},
        **ENVIRONMENTS[inherited.get(CHOICE) or "plain"].variables,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(download_cache("xdg")),
        "TERM": "dumb",
        # This tree, also for programs in other folders and in a copy (verification/mutations.py).
        "PYTHONPATH": str(ROOT),
        # A clone that belongs to somebody else than root, who runs the tests, is good enough.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def enter() -> None:
    """Let this process, and all that it starts, have the defined environment from here on."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # ours has it from the process that started it
        home = Path(os.environ["HOME"])
    else:
        home = Path(tempfile.mkdtemp(prefix="ds01d-home-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    whole = defined(os.environ, home)
    os.environ.clear()
    os.environ.update(whole)
    os.umask(ENVIRONMENTS[whole.get(CHOICE) or "plain"].umask)
    time.tzset()
