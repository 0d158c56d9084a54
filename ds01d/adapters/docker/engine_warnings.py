"""What an admin should know of an engine that answers, in words. Pure."""

from __future__ import annotations

from ds01d.model.containers import EngineWarning, EngineWarningKind


def lacks_id(root_dir: str) -> EngineWarning:
    """Podman: what identifies the engine is its data root and its storage driver."""
    return EngineWarning(
        kind=EngineWarningKind.NO_LASTING_ID,
        text="this engine has no lasting ID (Podman gives a new one with each answer): it is"
        f" recognized by {root_dir}, its inode and its storage driver alone",
        fix="none needed for Podman; keep every other engine away from that data root",
    )


def is_cut(interval_s: float, *, bridged: bool) -> EngineWarning:
    """`bridged`: the engine told afterwards what the gaps hid, so that waits went on."""
    text = f"the stream of Docker's events is cut every {interval_s:.3g} s"
    if not bridged:
        text += ", and what happens meanwhile is lost: waits start again each time"
    return EngineWarning(
        kind=EngineWarningKind.STREAM_CUT,
        text=text,
        fix="raise the idle timeout of the proxy in between (nginx: proxy_read_timeout; HAProxy,"
        " as in docker-socket-proxy: timeout client and timeout server), or set docker.url to the"
        " engine's own socket",
    )


def loses_events() -> EngineWarning:
    """Lists show changes that the stream, though open, has not told."""
    return EngineWarning(
        kind=EngineWarningKind.STREAM_LOSSY,
        text="the stream of Docker's events keeps losing some, or brings them late:"
        " changes are seen at the next sweep",
        fix="switch off buffering of responses in the proxy in between (nginx: proxy_buffering"
        " off), or set docker.url to the engine's own socket",
    )


def is_refused(reason: str) -> EngineWarning:
    """The engine answers, but not when it is asked for its events."""
    return EngineWarning(
        kind=EngineWarningKind.STREAM_REFUSED,
        text=f"no stream of events ({reason}): changes are seen at the next sweep",
        fix="allow GET /events in the proxy in between (docker-socket-proxy: EVENTS=1)",
    )
