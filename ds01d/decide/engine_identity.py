"""Identity of the Docker engine: whether it is the trusted one, and how two engines differ. Pure.

An engine hides containers that it could show before, and gives honest 404s for them, when another
data root, another storage driver or another image store takes the place of the one that was there:
dockerd loads only the containers of the driver it runs with (moby, daemon/daemon.go, `restore`).
So all of these belong to the identity, and a change of any of them is another engine.

But for an upgrade: dockerd before 25 takes its ID from /etc/docker/key.json, a later one makes
another at its first start and keeps it in the data root (tried: 20.10 to 26.1 and to 28.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ds01d.model.containers import EngineIdentity

_NO_ID = "an engine without a lasting ID"
_ID_OF_KEY = re.compile(r"(?:[A-Z2-7]{4}:){11}[A-Z2-7]{4}")
_ID_OF_ROOT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def same_engine(trusted: EngineIdentity, current: EngineIdentity, *, same_boot: bool) -> bool:
    """Whether the engine that answers is the trusted one."""
    return not any(engine_differences(trusted, current, same_boot=same_boot))


def is_upgraded(
    trusted: EngineIdentity, current: EngineIdentity, *, same_boot: bool, recognized: bool
) -> bool:
    """Whether the trusted engine has become a newer dockerd that gave it an ID of the new form.

    `recognized`: it lists a container, by ID, that the trusted one had. Another engine could have
    the directory and the driver of the trusted one, but not its containers.
    """
    # Decision 143: only from the old form to the new one, and only if a container of the trusted
    # engine is still listed.
    is_new_form = _ID_OF_KEY.fullmatch(trusted.id) and _ID_OF_ROOT.fullmatch(current.id)
    is_otherwise_same = same_engine(replace(trusted, id=current.id), current, same_boot=same_boot)
    return bool(is_new_form) and recognized and is_otherwise_same


def engine_differences(
    trusted: EngineIdentity, current: EngineIdentity, *, same_boot: bool
) -> Iterator[str]:
    """The differences of two engines, a phrase each; device numbers compare within one boot only.

    A trusted engine without a storage driver comes from a checkpoint that did not have one yet: it
    is completed by what answers now, and so is the ID that Podman made up for that very answer.
    """
    # Decision 85: an identity from an old checkpoint has no storage driver; an alarm on every host
    # after the upgrade would teach admins to ignore it.
    complete = bool(trusted.driver)
    if trusted.id != current.id and (complete or current.id):
        yield f"ID {current.id[:12] or 'none'} instead of {trusted.id[:12] or 'none'}"
    if trusted.root_dir != current.root_dir:
        yield f"data root {current.root_dir} instead of {trusted.root_dir}"
    elif trusted.inode != current.inode or (same_boot and trusted.device != current.device):
        yield f"another directory at {current.root_dir}"
    if complete and trusted.driver != current.driver:
        yield f"storage driver {current.driver or 'unknown'} instead of {trusted.driver}"
    if complete and trusted.image_store != current.image_store:
        yield f"image store {_describe_store(current)} instead of {_describe_store(trusted)}"


def describe_engine(engine: EngineIdentity) -> str:
    """An engine in a few words: "ABCD:EFGH:IJK at /var/lib/docker (overlay2)"."""
    place = f"{engine.id[:12] or _NO_ID} at {engine.root_dir}"
    details = [engine.driver, _describe_store(engine) if engine.image_store else ""]
    suffix = ", ".join(filter(None, details))
    return f"{place} ({suffix})" if suffix else place


def _describe_store(engine: EngineIdentity) -> str:
    return engine.image_store or "the storage driver's own"
