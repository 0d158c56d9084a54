"""Joins the parts of a host in a fleet whose hosts share a store. Imported only where it is set.

Holds no logic of its own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from ds01d import __version__
from ds01d.adapters.files.safe_read import NotRead, read_bytes
from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_settings import EtcdSettings, TlsFiles, parse_endpoint
from ds01d.config import Config, FleetConfig
from ds01d.daemon.fleet_worker import FleetParts
from ds01d.decide.fleet_findings import PROTOCOL
from ds01d.errors import StoreFailed
from ds01d.fleet_settings import CREDENTIALS
from ds01d.reconcile.fleet_memory import FleetStore, HostFacts, find_node

PASSWORD = "fleet-password"  # noqa: S105 - the name of a credential
_MAX_PASSWORD = 4096
_MAX_LIMITS = 16 << 20


def open_fleet(
    config: Config, store: FleetStore, environ: Mapping[str, str] = os.environ
) -> FleetParts:
    """The parts of `config.fleet`; nothing is asked yet."""
    client = EtcdClient(make_settings(config.fleet, environ))
    node = find_node(store, lambda: secrets.token_hex(8))
    return FleetParts(
        book=EtcdBooks(client, node),
        store=store,
        read_facts=lambda: _read_facts(config),
        close=client.close,
    )


def make_settings(fleet: FleetConfig, environ: Mapping[str, str]) -> EtcdSettings:
    """How the store is reached."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    # A command that root runs has none of its own, and reads those of the service.
    credentials = Path(folder) if folder else Path("/run/credentials/ds01d.service")
    return EtcdSettings(
        endpoints=tuple(map(parse_endpoint, fleet.etcd)),
        tls=_find_certificates(fleet.certificates, credentials),
        user=fleet.user,
        read_password=lambda: _read_password(credentials / PASSWORD),
    )


def _find_certificates(value: str, credentials: Path) -> TlsFiles:
    if not value:
        return TlsFiles()
    place, prefix = (credentials, "fleet-") if value == CREDENTIALS else (Path(value), "")
    # A lab without client certificates has only the authority.
    authority, certificate, key = (
        path if _may_exist(path := place / f"{prefix}{name}.pem") else None
        for name in ("ca", "cert", "key")
    )
    return TlsFiles(authority=authority, certificate=certificate, key=key)


def _may_exist(path: Path) -> bool:
    """Whether it is there, or in a folder that may not be looked into: each call says so then."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_password(path: Path) -> str:
    # Each time: systemd gives a new one to a unit that is started again, and etcd may have another.
    data = read_bytes(path, _MAX_PASSWORD)
    if isinstance(data, NotRead):
        raise StoreFailed(f"the password of fleet.user: {data.reason}")
    return data.decode(errors="replace").rstrip("\n")


def _read_facts(config: Config) -> HostFacts:
    data = read_bytes(config.books.limits, _MAX_LIMITS)
    # Of the file alone, as other hosts can have the very same one.
    digest = hashlib.sha256(data).hexdigest()[:16] if isinstance(data, bytes) else ""
    return HostFacts(
        host=config.fleet.name or socket.gethostname(),
        # Both are filled in by the session, which knows Docker and the clock.
        boot_id="",
        engine_id="",
        version=__version__,
        protocols=(PROTOCOL,),
        limits_digest=digest,
    )
