"""Reads the file of host names that `[fleet] hosts_file` names: one a line, # begins a comment."""

from __future__ import annotations

from pathlib import Path

from ds01d import config_text, fleet_settings
from ds01d.config import FleetConfig
from ds01d.errors import ConfigError
from ds01d.model.fleet import HostName


def list_hosts(fleet: FleetConfig) -> tuple[HostName, ...]:
    """All hosts that the configuration names, each once, in its order. Raises `ConfigError`."""
    names = list(fleet.hosts)
    if fleet.hosts_file:
        names += _read_file(Path(fleet.hosts_file))
    return tuple(map(HostName, dict.fromkeys(names)))


def _read_file(file: Path) -> list[str]:
    try:
        text = config_text.read_config(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{file} (fleet.hosts_file): cannot be read: {reason}") from error
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("#")[0].strip()
        if name and (problem := fleet_settings.ssh_host_problem(name)) is not None:
            raise ConfigError(f"{file}, line {number}: {problem}")
        names += [name] if name else []
    return names
