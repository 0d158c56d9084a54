"""What is read how often, and what is left out where users are hidden."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.errors import Ds01Error
from ds01d.web.content import CachedSection, PageContent
from ds01d.web.hiding import hide_users

LOGIN = "zoe7"


class Source:
    """A part that changes, with the time that passes."""

    def __init__(self) -> None:
        self.now, self.reads = 100.0, 0
        self.version: Hashable = 1
        self.value: object = 1
        self.error = ""

    def read(self) -> Mapping[str, Any]:
        self.reads += 1
        if self.error:
            raise Ds01Error(self.error)
        return {"value": self.value}

    def section(self) -> CachedSection:
        return CachedSection(
            self.read,
            pause_s=1.0,
            lasts_s=60.0,
            find_version=lambda: self.version,
            clock=lambda: self.now,
        )


def test_a_part_that_is_none_keeps_back_no_other_and_is_not_asked_for_by_each_reader() -> None:
    """As of a ds01d of another version, whose reply lacks a key."""
    reads: list[str] = []

    def read_broken() -> Mapping[str, Any]:
        reads.append("week")
        answer: dict[str, Mapping[str, Any]] = {}
        return answer["report"]

    content = PageContent(
        read_status=lambda: {"slots": []},
        find_status_version=lambda: 1,
        read_activity=lambda: {"waiting": []},
        read_week=read_broken,
    )
    for _ in range(3):
        shown = json.loads(content.find_data().content)
        assert shown["status"] == {"slots": []}
        assert shown["week"] == {"error": "internal error: KeyError: 'report'"}
    assert reads == ["week"]


def test_a_part_is_read_again_only_when_it_may_have_changed() -> None:
    source = Source()
    section = source.section()
    first = section.find_section()
    for _ in range(100):
        source.now += 0.5
        assert section.find_section() is first
    assert source.reads == 1
    source.version, source.value = 2, 2
    source.now += 1.0
    assert section.find_section() == {"value": 2}
    source.version = 3
    assert section.find_section() == {"value": 2}, "not before the pause is over"
    source.now += 60.0
    section.find_section()
    assert source.reads == 3


def test_what_was_read_again_and_is_the_same_stays_the_same_object() -> None:
    source = Source()
    section = source.section()
    first = section.find_section()
    source.now, source.version = 200.0, 2
    assert section.find_section() is first
    assert source.reads == 2


def test_a_failure_is_said_and_tried_again_sooner() -> None:
    source = Source()
    source.error = "nobody listens"
    section = source.section()
    for _ in range(10):
        assert section.find_section() == {"error": "nobody listens"}
    assert source.reads == 1
    source.error = ""
    source.now += 16.0
    assert section.find_section() == {"value": 1}


def content(status: Mapping[str, Any], *, hides_users: bool = False) -> PageContent:
    return PageContent(
        read_status=lambda: status,
        find_status_version=lambda: None,
        read_activity=lambda: {"waiting": [], "log": []},
        read_week=lambda: {"lines": []},
        hides_users=hides_users,
        clock=lambda: 0.0,
    )


def test_readers_share_one_body() -> None:
    page = content({"slots": []})
    assert page.find_data() is page.find_data()
    assert json.loads(page.find_status().content) == {"slots": []}
    shown = json.loads(page.find_data().content)
    assert shown["status"] == {"slots": []}
    assert shown["poll_s"] == 5.0


def test_hiding_leaves_what_is_about_slots() -> None:
    holder = {"container": f"{LOGIN}-train._.1001", "user": LOGIN, "state": "running"}
    slot = {"slot": "1.0", "profile": "1g.10gb", "holders": [holder], "foreign": [f"{LOGIN}-x"]}
    drift = {"kind": "stale-allocation", "container": f"{LOGIN}-x", "reason": f"of {LOGIN}"}
    gpu = {"index": 0, "name": "NVIDIA A100", "utilization": 7}
    freeze = {"subject": f"{LOGIN}-train._.1001", "by": LOGIN, "reason": f"for {LOGIN}"}
    status = {
        "slots": [slot],
        "freezes": [freeze],
        "gpus": [gpu],
        "open_drifts": [drift],
        "daemon": {"alive": True},
    }
    body = content(status, hides_users=True).find_status().content
    assert LOGIN.encode() not in body
    assert b"1001" not in body
    shown = json.loads(body)
    (hidden,) = shown["slots"][0]["holders"]
    assert hidden["user"] is None
    assert hidden["state"] == "running"
    assert hidden["container"].startswith("container-")
    assert shown["slots"][0]["slot"] == "1.0"
    assert shown["gpus"] == [gpu]
    # The same container is recognized as the same.
    assert shown["open_drifts"][0]["container"] == shown["slots"][0]["foreign"][0]
    assert shown["open_drifts"][0]["reason"] == "hidden"
    assert shown["open_drifts"][0]["kind"] == "stale-allocation"


FLEET_TIME = "2026-11-30T02:00:00+00:00"


def make_fleet() -> dict[str, Any]:
    holder = {"container": f"{LOGIN}-train._.1001", "user": LOGIN, "state": "running"}
    slot = {"slot": "1.0", "profile": "1g.10gb", "holders": [holder], "foreign": [], "free": False}
    known = {"host": "gpu01", "state": "ok", "slots": [slot], "published_at": FLEET_TIME}
    dead = {"host": "gpu02", "state": "unknown", "slots": None, "last_slots": [slot]}
    dead |= {"unknown_since": FLEET_TIME, "reason": f"ssh: {LOGIN}@gpu02: refused"}
    total = {"hosts": 2, "unknown": 1, "slots": 1, "free": 0}
    return {"at": FLEET_TIME, "total": total, "hosts": [known, dead]}


def test_all_hosts_are_read_where_there_are_several_and_hide_users_too() -> None:
    alone = json.loads(content({}).find_data().content)
    assert "fleet" not in alone
    reads: list[str] = []

    def read_fleet() -> Mapping[str, Any]:
        reads.append("fleet")
        return make_fleet()

    page = PageContent(
        read_status=dict,
        find_status_version=lambda: None,
        read_activity=dict,
        read_week=dict,
        read_fleet=read_fleet,
        find_fleet_version=lambda: 1,
        hides_users=True,
        clock=lambda: 0.0,
    )
    body, again = (page.find_data().content for _ in range(2))
    assert body == again
    assert reads == ["fleet"]
    assert LOGIN.encode() not in body
    shown = json.loads(body)["fleet"]
    assert shown["total"] == {"hosts": 2, "unknown": 1, "slots": 1, "free": 0}
    known, dead = shown["hosts"]
    assert (known["host"], known["state"], known["published_at"]) == ("gpu01", "ok", FLEET_TIME)
    assert (dead["host"], dead["unknown_since"], dead["reason"]) == ("gpu02", FLEET_TIME, "hidden")
    assert dead["last_slots"][0]["holders"][0]["user"] is None


TEXTS = st.text().map(lambda text: f"{text}{LOGIN}")
PERSONAL = st.sampled_from(
    [
        "user",
        "container",
        "subject",
        "name",
        "by",
        "reason",
        "details",
        "subjects",
        "health",
        "degraded",
        "error",
        "x",
    ]
)
DOCUMENTS = st.recursive(
    st.dictionaries(PERSONAL, TEXTS | st.lists(TEXTS)),
    lambda parts: st.dictionaries(
        st.sampled_from(
            ["slots", "holders", "freezes", "findings", "log", "waiting", "daemon", "x"]
        ),
        parts | st.lists(parts, max_size=3),
        max_size=3,
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(DOCUMENTS)
def test_no_login_gets_through_wherever_it_stands(document: dict[str, Any]) -> None:
    assert LOGIN not in json.dumps(hide_users(document))
