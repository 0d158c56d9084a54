"""How the members of the fleet's etcd are, each asked by itself: for doctor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_messages import StatusReply
from ds01d.adapters.fleet.etcd_settings import EtcdEndpoint
from ds01d.errors import StoreFailed
from ds01d.model.fleet_books import MemberState
from ds01d.model.primitives import Wall
from ds01d.text import make_printable


def look_at_members(client: EtcdClient) -> tuple[MemberState, ...]:
    """Every member, in the order of the configuration, all asked at once."""
    with ThreadPoolExecutor(max_workers=len(client.endpoints)) as pool:
        return tuple(pool.map(lambda endpoint: _look_at(client, endpoint), client.endpoints))


def _look_at(client: EtcdClient, endpoint: EtcdEndpoint) -> MemberState:
    try:
        status = client.call_member(endpoint, "/maintenance/status", {}, StatusReply)
        end = client.find_certificate_end(endpoint)
    except StoreFailed as error:
        return MemberState(endpoint=str(endpoint), problem=str(error))
    # Who listens there may answer anything: it is shown to people.
    return MemberState(
        endpoint=str(endpoint),
        version=make_printable(status.version)[:64],
        cluster=status.header.cluster,
        has_leader=bool(status.leader),
        errors=tuple(make_printable(text)[:200] for text in status.errors[:8]),
        size=status.size,
        quota=status.quota,
        certificate_end=None if end is None else Wall(end),
    )
