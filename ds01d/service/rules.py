"""Who may do what through the socket. Pure: a caller, what the books say, and an error or nothing.

Operators are root and the members of group ds01-operators: they may act for any user. Everybody
else acts for themselves, and can only lower what the limits give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ds01d.decide.ownership import NOBODY, choose_owner, parse_uid
from ds01d.model.actor import Actor
from ds01d.model.allocation import Refusal
from ds01d.model.books import BadRecord, Record
from ds01d.model.containers import Container, GpuRequestKind, NotFound
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName
from ds01d.service.client import INTERFACE, NOT_POSSIBLE
from ds01d.service.varlink import VarlinkError

OPERATORS: Final = "ds01-operators"
WEB_USER: Final = "ds01d-web"
"""The user of ds01d-web.service."""
NEEDED: Final = f"root or group {OPERATORS}"


def refused(
    code: str,
    detail: str = "",
    warnings: tuple[str, ...] = (),
    holdings: str = "",
    notify_until: float | None = None,
) -> VarlinkError:
    also: dict[str, object] = {"held": holdings} if holdings else {}
    if notify_until is not None:
        also["notify_until"] = notify_until
    error = f"{INTERFACE}.Refused"
    return VarlinkError(error, code=code, detail=detail, warnings=list(warnings), **also)


def not_yours(owner: str) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.NotYours", owner=owner)


def not_permitted(needs: str) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.NotPermitted", needs=needs)


def unavailable(reason: str) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.Unavailable", reason=reason)


def is_failure(error: VarlinkError) -> bool:
    """Whether an error only means that something could not be read."""
    code = error.parameters.get("code")
    return error.error.endswith(".Unavailable") or code in (
        Refusal.INVENTORY_UNKNOWN,
        Refusal.LIMITS_UNREADABLE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who calls, by the kernel and the user database. `pid` is for logs only."""

    uid: int
    login: str
    pid: int
    is_operator: bool

    @property
    def actor(self) -> Actor:
        return Actor(uid=self.uid, login=self.login, pid=self.pid)


def require_operator(peer: Peer) -> None:
    """Raises `VarlinkError` (NotPermitted)."""
    if not peer.is_operator:
        raise not_permitted(NEEDED)


def is_page_reader(peer: Peer) -> bool:
    """Whether a peer may read, of all users, what the web page shows."""
    # Decision 285: its own user, so that the page needs no operator's right to change anything.
    return peer.is_operator or peer.login == WEB_USER


def require_page_reader(peer: Peer) -> None:
    """Raises `VarlinkError` (NotPermitted)."""
    if not is_page_reader(peer):
        raise not_permitted(f"{NEEDED}, or user {WEB_USER}")


def choose_user(peer: Peer, user: str | None) -> UserName:
    """The user of a request; the caller by default. Raises `VarlinkError` (NotPermitted)."""
    if user is None or user == peer.login:
        return UserName(peer.login)
    require_operator(peer)
    return UserName(user)


def require_own(
    peer: Peer,
    name: ContainerName,
    record: Record | BadRecord | None,
    container: Container | None,
    *,
    is_booked: bool,
) -> None:
    """Refuse a container of somebody else. Raises `VarlinkError` (NotYours).

    A container belongs to the user of its booking; without a booking the uid in its name decides,
    then the label. One that belongs to nobody may be booked by anybody; a booking whose user is not
    known is changed by operators only.
    """
    if peer.is_operator:
        return
    recorded = record if isinstance(record, Record) else None
    uid = parse_uid(name)
    is_named_otherwise = uid is not None and uid != peer.uid
    labels: Mapping[str, str] = {}
    # Decision 135: a label counts only where the name has no uid.
    if container is not None and not (container.is_unnamed or is_named_otherwise):
        labels = container.labels
    passwd, logins = {peer.uid: peer.login}, {peer.login: peer.uid}
    owner = choose_owner(name, recorded, labels, passwd, logins)
    if owner is None and is_named_otherwise:
        raise not_yours(f"uid {uid}")
    if owner is None and is_booked:
        raise not_yours(NOBODY)
    if owner is not None and owner != peer.login:
        raise not_yours(owner)


def require_gone(_: Peer, name: ContainerName, container: Container | NotFound | Unknown) -> None:
    """Refuse unless Docker has no container of that name. Raises `VarlinkError`."""
    if isinstance(container, Unknown):
        raise unavailable(f"cannot see whether {name} exists: {container.reason}")
    if isinstance(container, Container):
        raise refused(NOT_POSSIBLE, f"a container with the name {name} exists")


def require_no_use(
    peer: Peer, name: ContainerName, container: Container | NotFound | Unknown
) -> None:
    """Refuse to release the GPU of a container that may run. Raises `VarlinkError`.

    It would keep it beside the quota, until ds01d books it again.
    """
    if peer.is_operator or isinstance(container, NotFound):
        return
    if isinstance(container, Unknown):
        raise unavailable(f"cannot see whether {name} runs: {container.reason}")
    request = container.request
    has_gpu = isinstance(request, Unknown) or request.ask is not GpuRequestKind.NONE
    # Decision 210. Not one that is only created: a failed start gives back its booking.
    if container.state.alive and has_gpu:
        detail = f"{name} is {container.state} and has its GPU: container-stop it first"
        raise refused(NOT_POSSIBLE, detail)


def lower_limits(
    peer: Peer, user: UserName, most: int | None, priority: int | None, limits: Limits | Unknown
) -> tuple[int | None, int | None]:
    """The bounds of an allocation: what the limits say, or less. None: as the limits say.

    Raises `VarlinkError` (Refused) where the limits cannot be read and the caller is no operator.
    """
    if peer.is_operator:
        return most, priority
    if isinstance(limits, Unknown):
        # Decision 23 lets an explicit number stand in for unreadable limits; here that number is
        # the caller's own word.
        raise refused("LIMITS_UNREADABLE", limits.reason)
    quota, given = limits.find_quota(user), limits.find_priority(user)
    if most is not None and quota is not None:
        most = min(most, quota)
    gpus = limits.find_gpu_quota(user)
    if most is not None and gpus is not None and gpus.gpus is not None and most > gpus.gpus:
        most = None
    if priority is not None:
        priority = min(priority, given or 0)
    return most, priority
