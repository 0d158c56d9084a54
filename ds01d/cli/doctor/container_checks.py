"""Whether users without Docker can have containers through the service, and as whom these run."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.adapters.docker.engine_info import read_info
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.config import Config
from ds01d.containers.confinement import require_own_namespaces
from ds01d.containers.order import read_root_catalogue
from ds01d.errors import Ds01Error

_NAME = "containers"


def check_containers(config: Config) -> Iterator[Check]:
    """Check what `service.containers` needs; one line where it is off."""
    if not config.service.containers:
        yield ok(_NAME, "users need access to Docker for containers (service.containers is false)")
        return
    if config.booking_socket is None:
        why = "daemon.mode is observe" if config.daemon.mode == "observe" else "no service.socket"
        yield warn(_NAME, f"not offered to users: {why}", "see docs/containers.md")
        return
    try:
        require_own_namespaces(read_root_catalogue(config).setup)
    except Ds01Error as error:
        yield warn(_NAME, str(error), "correct the catalogue; until then no user can create one")
        return
    yield _check_user(config)


def _check_user(config: Config) -> Check:
    """As whom their processes run."""
    try:
        info = read_info(HttpClient(config.docker.url, config.docker.timeout_s).get("/info"))
    except Ds01Error as error:
        return warn(_NAME, str(error), "see docker; as whom containers run is not known")
    wanted = config.service.root_in_containers
    if info.remaps_users:
        root = "root is possible inside" if wanted else "not root inside (root_in_containers)"
        return ok(_NAME, f"offered to users; Docker remaps users; {root}")
    if wanted:
        return warn(
            _NAME,
            "offered to users; they run as their user: Docker does not remap users",
            "set userns-remap in Docker's daemon.json, or root_in_containers = false",
        )
    return ok(_NAME, "offered to users; they run as their user, without capabilities")
