"""Which Docker engine answers: whether it is the trusted one, and what tells it apart. Pure.

An engine hides containers that it could show before, and gives honest 404s for them, when another
data root, another storage driver or another image store takes the place of the one that was there:
dockerd loads only the containers of the driver it runs with (moby, daemon/daemon.go, `restore`).
So all of these belong to the identity, and a change of any of them is another engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.model.containers import EngineIdentity

_NO_ID = "an engine without a lasting ID"


def same_engine(trusted: EngineIdentity, answers: EngineIdentity, *, same_boot: bool) -> bool:
    """Whether the engine that answers is the trusted one."""
    return not any(engine_differences(trusted, answers, same_boot=same_boot))


def engine_differences(
    trusted: EngineIdentity, answers: EngineIdentity, *, same_boot: bool
) -> Iterator[str]:
    """What tells two engines apart, a phrase each; device numbers compare within one boot only.

    A trusted engine without a storage driver comes from a checkpoint that did not have one yet: it
    is completed by what answers now, and so is the ID that Podman made up for that very answer.
    """
    complete = bool(trusted.driver)
    if trusted.id != answers.id and (complete or answers.id):
        yield f"ID {answers.id[:12] or 'none'} instead of {trusted.id[:12] or 'none'}"
    if trusted.root_dir != answers.root_dir:
        yield f"data root {answers.root_dir} instead of {trusted.root_dir}"
    elif trusted.inode != answers.inode or (same_boot and trusted.device != answers.device):
        yield f"another directory at {answers.root_dir}"
    if complete and trusted.driver != answers.driver:
        yield f"storage driver {answers.driver or 'unknown'} instead of {trusted.driver}"
    if complete and trusted.image_store != answers.image_store:
        yield f"image store {_store(answers)} instead of {_store(trusted)}"


def describe_engine(engine: EngineIdentity) -> str:
    """An engine in a few words: "ABCD:EFGH:IJK at /var/lib/docker (overlay2)"."""
    where = f"{engine.id[:12] or _NO_ID} at {engine.root_dir}"
    details = [engine.driver, _store(engine) if engine.image_store else ""]
    told = ", ".join(filter(None, details))
    return f"{where} ({told})" if told else where


def _store(engine: EngineIdentity) -> str:
    return engine.image_store or "the storage driver's own"
