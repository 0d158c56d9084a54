"""`doctor` says whether the store of a fleet can be used, and what its users are worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ds01d.cli.doctor.fleet_store_checks import check_fleet_store
from ds01d.cli.doctor.source_checks import Check, Health
from ds01d.config import Config, FleetConfig
from simulation.etcd import EtcdCluster
from simulation.etcd_certificates import EtcdAuthority
from simulation.ports import find_free_port
from tests.adapters.fleet.test_etcd_client import USERS, answer_with
from tests.support.fleet_store import started_etcd
from tests.support.notices import serving


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    with started_etcd(3) as made:
        yield made


def check(members: Sequence[str], folder: Path | None = None, **settings: str) -> list[Check]:
    environ = {} if folder is None else {"CREDENTIALS_DIRECTORY": str(folder)}
    config = Config(fleet=FleetConfig(etcd=tuple(members), **settings))  # type: ignore[arg-type]
    return [*check_fleet_store(config, environ)]


def describe(checks: Sequence[Check], health: Health) -> str:
    return "\n".join(check.detail for check in checks if check.health is health)


def test_without_a_store_there_is_no_check() -> None:
    assert check([]) == []


def test_a_store_that_is_well(three: EtcdCluster) -> None:
    checks = check(three.endpoints)
    assert describe(checks, Health.FAIL) == ""
    assert "3 members with a leader" in describe(checks, Health.OK)
    assert "/ds01/v1/ is readable" in describe(checks, Health.OK)
    # Debian 13 has 3.5.16, and the newest etcd of Debian still has one of them.
    warned = describe(checks, Health.WARN)
    assert f"etcd {three.programs.version}: its users and roles protect nothing" in warned
    assert "CVE-2026-73499" in warned


def test_two_members_are_no_safer_than_one(three: EtcdCluster) -> None:
    assert "2 members: no more of them may fail than of 1" in describe(
        check(three.endpoints[:2]), Health.WARN
    )


def test_members_of_two_stores_are_named(three: EtcdCluster) -> None:
    with started_etcd() as other:
        checks = check([*three.endpoints, *other.endpoints])
    assert "members of 2 clusters" in describe(checks, Health.FAIL)


def test_members_that_cannot_be_asked(three: EtcdCluster) -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    checks = check([*three.endpoints, nowhere])
    assert f"not every member can be asked: {nowhere}" in describe(checks, Health.WARN)
    assert describe(checks, Health.FAIL) == ""
    (only,) = check([nowhere])
    assert (only.health, "refused" in only.detail) == (Health.FAIL, True)


@pytest.mark.parametrize(
    ("version", "health", "words"),
    [
        ("3.4.23", Health.FAIL, "etcd 3.4.23 is not supported, and unsafe: CVE-2026-33343"),
        ("3.5.16", Health.WARN, "protect nothing: CVE-2026-33343"),
        ("3.6.14", Health.OK, "etcd 3.6.14"),
        ("\x1b[31m", Health.WARN, "unknown version"),
    ],
)
def test_versions_are_judged_by_their_number(version: str, health: Health, words: str) -> None:
    status = {"version": version, "leader": "1", "header": {"cluster_id": "1"}}
    body = json.dumps(status).encode()
    answer = answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    with serving(answer) as server:
        checks = check([f"http://127.0.0.1:{server.port}"])
    assert words in describe(checks, health)
    assert all(check.detail.isprintable() for check in checks)


@pytest.mark.parametrize(
    ("space", "health", "words"),
    [
        ({"errors": ["alarm:NOSPACE "]}, Health.FAIL, "alarm:NOSPACE"),
        (
            {"dbSize": str(1800 << 20)},
            Health.WARN,
            "1.8 GiB of space used; no more writes from 2.0",
        ),
        ({"dbSize": "1000", "dbSizeQuota": "1001"}, Health.WARN, "of space used"),
        ({"dbSize": "1000", "dbSizeQuota": "8001"}, Health.WARN, ""),
    ],
)
def test_space_that_is_used_up_or_soon_will_be(
    space: dict[str, object], health: Health, words: str
) -> None:
    status = {"version": "3.6.14", "leader": "1", "header": {}, **space}
    body = json.dumps(status).encode()
    answer = answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    with serving(answer) as server:
        checks = check([f"http://127.0.0.1:{server.port}"])
    shown = describe(checks, health)
    assert words in shown if words else not shown


def test_users_and_certificates(tmp_path: Path) -> None:
    authority = EtcdAuthority(tmp_path)
    with started_etcd(tls=authority.make_server_tls()) as made:
        for words in USERS:
            made.run_etcdctl(*words)

        def place(name: str, common_name: str = "") -> Path:
            """Credentials as the service has them; the certificate ends within 30 days."""
            folder = tmp_path / name
            folder.mkdir()
            certificate, key = authority.sign(name, common_name=common_name)
            certificate.rename(folder / "fleet-cert.pem")
            key.rename(folder / "fleet-key.pem")
            (folder / "fleet-ca.pem").write_bytes(authority.certificate.read_bytes())
            return folder

        folder = place("good")
        settings = {"certificates": "credentials", "user": "gpu01"}
        (unknown,) = check(made.endpoints, folder, **settings)
        assert "fleet-password" in unknown.detail
        assert "as root" in (unknown.fix or "")

        (folder / "fleet-password").write_text("first\n")
        checks = check(made.endpoints, folder, **settings)
        assert describe(checks, Health.FAIL) == ""
        assert "/ds01/v1/ is readable" in describe(checks, Health.OK)
        assert "fleet-cert.pem is valid until" in describe(checks, Health.WARN)
        # So does that of the member itself, which ends on the same day.
        assert f"{made.endpoints[0]}: its certificate is valid until 20" in describe(
            checks, Health.WARN
        )

        (folder / "fleet-password").write_text("a secret")
        checks = check(made.endpoints, folder, **settings)
        assert "authentication failed" in describe(checks, Health.FAIL)
        assert not any("a secret" in check.detail for check in checks)

        named = place("named", "gpu01")
        (named / "fleet-password").write_text("first")
        failed = describe(check(made.endpoints, named, **settings), Health.FAIL)
        assert "has a common name (CN=gpu01): etcd refuses it where users log in" in failed
