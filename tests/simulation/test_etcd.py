"""The etcd on loopback: members that freeze, die and come back, and a cluster made of a backup."""

import http.client
import json
from collections.abc import Iterator

import pytest

from simulation.etcd import EtcdCluster, EtcdUnavailable, etcd_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    try:
        with etcd_cluster(
            3, settings=("--heartbeat-interval=50", "--election-timeout=500")
        ) as made:
            yield made
    except EtcdUnavailable as error:
        pytest.skip(str(error))


def read(cluster: EtcdCluster, key: str) -> str:
    return cluster.run_etcdctl("get", key, "--print-value-only").strip()


def cluster_id(cluster: EtcdCluster) -> int:
    answer = json.loads(cluster.run_etcdctl("get", "any", "--write-out=json"))
    return int(answer["header"]["cluster_id"])


def test_a_member_that_was_frozen_or_killed_has_what_was_written_meanwhile(
    cluster: EtcdCluster,
) -> None:
    first, second, _ = cluster.members
    cluster.run_etcdctl("put", "a", "1")
    second.freeze()
    assert not second.is_healthy()
    assert second.is_running()
    cluster.run_etcdctl("put", "a", "2")
    second.kill()
    assert not second.is_running()
    cluster.start()
    assert cluster.run_etcdctl("get", "a", "--print-value-only", member=second).strip() == "2"
    assert cluster.find_leader() in cluster.members
    assert first.log.exists()


def test_of_a_backup_a_new_cluster_is_made_at_the_same_addresses(cluster: EtcdCluster) -> None:
    cluster.run_etcdctl("put", "b", "old")
    backup = cluster.folder / "backup"
    cluster.save_snapshot(backup)
    cluster.run_etcdctl("put", "b", "new")
    endpoints, before = cluster.endpoints, cluster_id(cluster)
    cluster.restore_snapshot(backup, same_id=True)
    assert (cluster.endpoints, cluster_id(cluster)) == (endpoints, before)
    assert read(cluster, "b") == "old"
    cluster.restore_snapshot(backup)
    assert cluster_id(cluster) != before


def test_nothing_is_left_behind() -> None:
    try:
        with etcd_cluster() as made:
            member = made.members[0]
            member.freeze()
    except EtcdUnavailable as error:
        pytest.skip(str(error))
    assert not made.folder.exists()
    connection = http.client.HTTPConnection("127.0.0.1", member.client_port, timeout=60)
    with pytest.raises(ConnectionRefusedError):
        connection.connect()
