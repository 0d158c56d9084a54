"""The limits as the lab's present server has them, read as its own scripts read them.

Where those misread a value, what is meant counts, or no hold ends; and a line names the mistake.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books.gpu_quotas import EQUIVALENTS_KEYS
from ds01d.adapters.books.limits import NO_LIMITS, LimitsFile
from ds01d.adapters.books.limits_format import LimitsFormat
from ds01d.adapters.books.limits_rules import resolve_limits
from ds01d.adapters.books.timestamps import parse_time
from ds01d.model.container_labels import ContainerType
from ds01d.model.limits import GpuQuota, IdleRule, Limits
from ds01d.model.primitives import Source, Unknown, UserName, Wall
from tests.support.daemon import DATA

RUNTIME = DATA / "lab" / "config" / "runtime"
ANSWERS = json.loads((DATA / "lab" / "answers.json").read_text())
NOW = Wall(parse_time("2026-11-29T12:00:00Z") or 0.0)
QUARTER, HOUR, DAY = 900.0, 3600.0, 86_400.0

Edit = Callable[..., Limits]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for quiet at once."""
    monkeypatch.setattr("ds01d.adapters.books.limits_files._QUIET_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the lab's folder."""
    return Path(shutil.copytree(RUNTIME, tmp_path / "runtime"))


def file_in(folder: Path) -> LimitsFile:
    return LimitsFile(folder / "resource-limits.yaml")


def read(folder: Path) -> Limits:
    limits = file_in(folder).read()
    assert isinstance(limits, Limits), limits
    return limits


@pytest.fixture
def understand(tmp_path: Path) -> Edit:
    """The limits of a text, with other files beside it."""

    def write_and_read(text: str, **beside: str) -> Limits:
        (tmp_path / "resource-limits.yaml").write_text(text)
        (tmp_path / "groups").mkdir(exist_ok=True)
        for name, content in beside.items():
            path = {
                "overrides": "user-overrides.yaml",
                "assignments": "group-overrides.txt",
                "exemptions": "lifecycle-exemptions.yaml",
            }.get(name, f"groups/{name}.members")
            (tmp_path / path).write_text(content)
        return read(tmp_path)

    return write_and_read


def quota_of(limits: Limits, user: str) -> GpuQuota:
    quota = limits.find_gpu_quota(UserName(user))
    assert quota is not None
    return quota


def lines(limits: Limits) -> list[str]:
    """What is reported, without the folder."""
    return [line.rpartition("/")[2] if "/groups/" not in line else line.rpartition("/groups/")[2]
            for line in limits.passed_over]  # fmt: skip


# --- as the lab's own script answers ------------------------------------------------------------


def in_words(limits: Limits, user: UserName, option: str) -> str:
    """What `get_resource_limits.py` prints, out of what was understood."""
    quota, resources = quota_of(limits, user), limits.find_resources(user)
    life, hold = limits.find_lifecycle(user), limits.find_hold(user)
    name, _, key = option.partition(" ")
    if name == "--check-exemption":
        exemption = limits.find_exemption(user, key, NOW)
        if exemption is None:
            return "not_exempt"
        return f"exempt: {'Permanent' if exemption.expires is None else 'Temporary'} exemption"
    return {
        "--group": limits.find_group(user),
        "--max-gpus": number(quota.gpus, "unlimited"),
        "--max-mig-per-container": number(quota.slots_per_container, "unlimited"),
        "--aggregate-gpu-limit": "unlimited"
        if quota.aggregate is None
        else str(float(quota.aggregate)),
        "--max-containers": number(resources.max_containers, "unlimited"),
        "--max-ram": f"{(resources.memory or 0) >> 30}g",
        "--allow-full-gpu": str(quota.whole_gpus).lower(),
        "--priority": str(limits.find_priority(user)),
        "--gpu-hold-time": hours(hold.seconds, "indefinite"),
        "--container-hold-time": hours(life.removal_after_stop_s, "never"),
        "--idle-timeout": hours(life.idle_timeout_s, "None"),
        "--max-runtime": hours(life.max_runtime_s, "None"),
    }[name]


def number(amount: Fraction | int | None, none: str) -> str:
    return none if amount is None else f"{float(amount):g}"


def hours(seconds: float | None, none: str) -> str:
    return none if seconds is None else f"{seconds / HOUR:g}"


OF_OVERRIDES = {"--aggregate", "--aggregate-gpu-limit"}  # decision 223: read otherwise


@pytest.mark.parametrize("user", ANSWERS)
def test_every_user_has_the_limits_that_the_labs_script_gives(user: str) -> None:
    limits = read(RUNTIME)
    assert limits.passed_over == limits.unclear == ()
    for option, expected in ANSWERS[user].items():
        if option == "--aggregate" or (user == "gina" and option in OF_OVERRIDES):
            continue
        answer = in_words(limits, UserName(user), option)
        if option.startswith("--check"):
            assert expected.startswith(answer), (option, answer)
        else:
            assert answer == expected, option


def test_the_slice_has_the_sanitized_login(understand: Edit) -> None:
    limits = understand(
        'defaults: {max_gpu_slots: 1, slice: "ds01-{group}-{user}.slice"}\ngroups: {a: {}}',
        a="c.demo@campus.example",
    )
    slice_name = limits.find_resources(UserName("c.demo@campus.example")).slice
    assert slice_name == "ds01-a-c_demo.slice"


def test_of_a_long_login_both_sanitized_forms_count(understand: Edit) -> None:
    login = "d.long-surname.of.many.parts.and.more@campus.example"
    for form in ("d_long_surname_of_many_part_e2a7", "d_long_surname_of_many_part-e2a7"):
        limits = understand(
            "groups: {other: {}, a: {max_gpu_slots: 5}}", other="somebody\n", a=f"{form}\n"
        )
        assert limits.find_group(UserName(login)) == "a"


# --- who is named --------------------------------------------------------------------------------


def test_the_first_group_in_the_file_counts_and_the_second_is_reported(understand: Edit) -> None:
    limits = understand(
        "groups: {b: {gpu_hold_after_stop_h: 2}, a: {gpu_hold_after_stop_h: 1, members: [amy]}}",
        a="bob\ne.fox@x\n",
        b="amy\ne_fox\n",
    )
    assert limits.find_group(UserName("amy")) == limits.find_group(UserName("e.fox@x")) == "b"
    assert limits.find_hold(UserName("amy")).seconds == 2 * HOUR
    assert lines(limits) == [
        "resource-limits.yaml: groups: amy is in b and a: b counts; remove it from the other"
    ]


def test_an_override_counts_before_every_group(understand: Edit) -> None:
    limits = understand(
        "defaults: {max_gpu_equivalents: 1.0, gpu_hold_after_stop_h: 1}\n"
        "groups: {a: {max_gpu_equivalents: 2.0}}\nuser_overrides: {bob: {priority: 1}}",
        a="amy\nbob\n",
        overrides="amy: {max_gpu_equivalents: 0.5}\nbob: {priority: 7}\nc_demo: {priority: 3}",
    )
    assert quota_of(limits, "amy").gpus == Fraction(1, 2)
    assert limits.find_priority(UserName("bob")) == 7  # the file beside comes after the section
    assert limits.find_priority(UserName("c.demo@x")) == 3
    assert limits.find_priority(UserName("zoe")) == 10
    assert limits.find_group(UserName("c.demo@x")) == "override"
    assert limits.find_hold(UserName("amy")).source == "defaults.gpu_hold_after_stop_h"


def test_what_is_wrong_in_the_files_of_members_is_reported(understand: Edit) -> None:
    limits = understand(
        "groups: {a: {max_gpu_slots: 2}}",
        a="amy # comment\n\n#bob\ncarl dora\nemil\r\n",
        archived="gone\n",
        b="fay\n",
        assignments="amy:a\nzoe:a\nfay:c\nnobody\n# x:y\n",
    )
    assert {name for name in limits.groups if limits.groups[name] == "a"} == {"amy", "emil"}
    assert lines(limits) == [
        (
            "group-overrides.txt: zoe: a is assigned, and the default group counts;"
            " correct the .members files"
        ),
        "group-overrides.txt: fay: unknown group 'c'",
        "a.members: line 4: invalid login 'carl dora'; write one login a line",
        "b.members: there is no group 'b'",
        "group-overrides.txt: line 4: invalid line 'nobody'; write login:group",
    ]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "gpus", "problem"),
    [
        ("2.0", Fraction(2), ""),
        ("0.1", Fraction(1, 10), ""),
        ("2", Fraction(2), ""),
        ("0", Fraction(0), ""),
        ("null", None, ""),
        ("unlimited", None, ""),
        ("Unlimited", None, "'Unlimited': write"),
        ('"2.5"', Fraction(5, 2), "'2.5' is a text: write 2.5"),
        ("many", Fraction(1), "invalid number 'many'"),
        ("yes", Fraction(1), "invalid number True"),
        ("-1", Fraction(1), "invalid number -1"),
        (".nan", Fraction(1), "invalid number nan"),
        (".inf", Fraction(1), "invalid number inf"),
        ("[2]", Fraction(1), "invalid number [2]"),
    ],
)
def test_gpu_equivalents(
    understand: Edit, written: str, gpus: Fraction | None, problem: str
) -> None:
    limits = understand(f"defaults: {{max_gpu_equivalents: {written}}}")
    assert quota_of(limits, "amy").gpus == gpus
    expected = [f"resource-limits.yaml: defaults.max_gpu_equivalents: {problem}"]
    found = [line[: len(expected[0])] for line in lines(limits)]
    assert found == (expected if problem else [])


@pytest.mark.parametrize("key", ["max_gpu_slots", "max_gpus_per_user", "max_mig_instances"])
def test_an_older_name_of_the_quota_counts_where_the_new_one_is_nowhere(
    understand: Edit, key: str
) -> None:
    text = f"defaults: {{max_runtime_h: 1}}\ngroups: {{a: {{members: [amy], {key}: 3}}}}"
    assert quota_of(understand(text), "amy").gpus == 3
    text = text.replace("_h: 1", "_h: 1, max_gpu_equivalents: 1.5")
    limits = understand(text)
    assert quota_of(limits, "amy").gpus == Fraction(3, 2)
    assert lines(limits) == [
        (
            f"resource-limits.yaml: groups.a.{key}: defaults.max_gpu_equivalents counts before it:"
            " write max_gpu_equivalents here too"
        )
    ]


@pytest.mark.parametrize(
    ("written", "slots", "problem"),
    [("3", 3, False), ("null", None, False), ("unlimited", None, False), ("0", 0, False),
     ("2.5", 2, True), ("x", 1, True), ("-1", 1, True), ('"2"', 2, True)],
)  # fmt: skip
@pytest.mark.parametrize(
    "key", ["max_gpu_slots_per_container", "max_gpus_per_container", "max_mig_per_container"]
)
def test_slots_of_a_container(
    understand: Edit, key: str, written: str, slots: int | None, problem: bool
) -> None:
    limits = understand(f"defaults: {{max_runtime_h: 1, {key}: {written}}}")
    assert quota_of(limits, "amy").slots_per_container == slots
    assert [f"defaults.{key}: " in line for line in lines(limits)] == [True] * problem


def test_what_is_missing(understand: Edit) -> None:
    limits = understand("defaults:\n  aggregate: {}\n  idle_timeout_h:\ndefault_group: x\n")
    quota = quota_of(limits, "amy")
    assert (quota.gpus, quota.slots_per_container) == (Fraction(1), 1)
    assert not quota.whole_gpus
    assert quota.aggregate is None
    assert limits.find_hold(UserName("amy")).seconds is None
    assert limits.find_priority(UserName("amy")) == limits.find_priority(None) == 10
    assert limits.find_resources(UserName("amy")).max_containers == 3
    life = limits.find_lifecycle(UserName("amy"))
    assert (life.idle_timeout_s, life.max_runtime_s, life.removal_after_stop_s) == (None,) * 3
    assert lines(limits) == []


@pytest.mark.parametrize("written", ['"no"', "1", "false ", "null", '"true"'])
def test_whole_gpus_only_by_a_plain_true(understand: Edit, written: str) -> None:
    limits = understand(f"defaults: {{max_runtime_h: 1, allow_full_gpu: {written}}}")
    assert not quota_of(limits, "amy").whole_gpus
    assert len(lines(limits)) == (written.strip() not in ("false", "null"))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0.25", QUARTER), ("1", HOUR), ("null", None), ('"0"', 0.0), ("never", None),
        ("indefinite", None), ('"24h"', DAY), ("30m", 1800.0), ("1d", DAY), ('"0.5"', 1800.0),
    ],
)  # fmt: skip
def test_a_hold_in_hours(understand: Edit, written: str, seconds: float | None) -> None:
    limits = understand(f"defaults: {{gpu_hold_after_stop_h: {written}}}")
    rule = limits.find_hold(UserName("amy"))
    assert (rule.seconds, rule.problem) == (seconds, "")
    assert rule.source == "defaults.gpu_hold_after_stop_h"
    assert lines(limits) == []


@pytest.mark.parametrize(
    ("form", "written", "seconds", "problem"),
    [
        ("_h", "4", 4 * HOUR, ""),
        ("_h", '"90m"', 1.5 * HOUR, ""),
        ("_h", "null", None, ""),
        (
            "_h",
            "0",
            None,
            "a container that runs is not idle at once: write hours",
        ),
        ("_h", "soon", None, "invalid duration 'soon': write hours, like 0.25, or null"),
        ("_h", "4, gpu_idle_report_after_h: 5", None, "duplicate key"),
        ("", "4h", 4 * HOUR, ""),
        ("", "never", None, ""),
        ("", '"0h"', None, 'a container that runs is not idle at once: write "4h" or null'),
        ("", "4", None, '4 has no unit: write "4h" or "4m"'),
    ],
)
def test_when_an_idle_container_is_reported(
    understand: Edit, form: str, written: str, seconds: float | None, problem: str
) -> None:
    key, hold = f"gpu_idle_report_after{form}", f'gpu_hold_after_stop{form}: "1h"'
    limits = understand(
        f"defaults: {{{key}: {written}, {hold}}}\ngroups: {{a: {{members: [amy], {key}: 2h}}}}"
    )
    rule, of_group = (limits.find_idle_rule(UserName(user)) for user in ("bob", "amy"))
    assert rule == IdleRule(seconds=seconds, source=f"defaults.{key}")
    assert limits.find_idle_rule(None) == rule
    assert of_group == IdleRule(seconds=2 * HOUR, source=f"groups.a.{key}")
    found = [line.partition(f"defaults.{key}: ")[2] for line in limits.passed_over]
    assert [line.startswith(problem) for line in found] == ([True] if problem else [])
    assert limits.has_idle_rules


def test_without_the_key_the_limits_say_nothing_of_idle_containers(understand: Edit) -> None:
    limits = understand("defaults: {gpu_hold_after_stop_h: 1, gpu_idle_reprt_after_h: 4}")
    assert limits.find_idle_rule(UserName("amy")) is None
    assert not limits.has_idle_rules
    assert "did you mean gpu_idle_report_after_h?" in limits.passed_over[0]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("0", "the number 0 is for ever for the lab's allocator"),
        ("0.0", "the number 0 is for ever"),
        ("-1", "invalid duration -1"),
        ("true", "invalid duration True"),
        (".nan", "invalid duration nan"),
        ('"36s"', "'36s' is 36 hours for the lab's allocator: write 0.01"),
        ("1h30m", "'1h30m' is 1 hours for the lab's allocator: write 1.5"),
        ("1w", "'1w' is 1 hours for the lab's allocator: write 168"),
        ("soon", "invalid duration 'soon'"),
        ("[1]", "invalid duration [1]"),
        ("2026-01-01", "invalid duration"),
        ("1, gpu_hold_after_stop_h: 2", "duplicate key"),
    ],
)
def test_a_hold_that_is_misread_does_not_end(understand: Edit, written: str, problem: str) -> None:
    limits = understand(
        f"defaults: {{gpu_hold_after_stop_h: {written}}}\n"
        "groups: {a: {members: [amy], gpu_hold_after_stop_h: 1}}"
    )
    rule = limits.find_hold(UserName("bob"))
    assert rule.seconds is None
    assert f"defaults.gpu_hold_after_stop_h: {problem}" in rule.problem
    assert limits.passed_over == (rule.problem,)
    assert limits.find_hold(UserName("amy")).seconds == HOUR


@pytest.mark.parametrize("key", ["gpu_hold_after_stop", "gpu_hold_after_stop_m", "gpu_hold_h"])
def test_a_key_that_looks_like_the_hold_ends_none(understand: Edit, key: str) -> None:
    limits = understand(f"defaults: {{max_runtime_h: 1}}\ngroups: {{a: {{{key}: 1}}}}", a="amy\n")
    rule = limits.find_hold(UserName("amy"))
    if key == "gpu_hold_after_stop":  # with no key in hours beside it, it is the older format's
        assert rule.seconds is None
        assert "has no unit" in rule.problem
    else:
        assert rule.seconds is None
        assert f"groups.a.{key}: is not read; did you mean gpu_hold_after_stop_h?" in rule.problem


def test_the_older_hold_is_read_beside_quotas_in_gpu_equivalents(understand: Edit) -> None:
    limits = understand(
        "defaults: {max_gpu_equivalents: 1.0, gpu_hold_after_stop: 0.25h}\n"
        "groups: {a: {gpu_hold_after_stop: 1d}}",
        a="amy\n",
    )
    assert limits.find_hold(UserName("amy")).seconds == DAY
    assert limits.find_hold(UserName("zoe")).seconds == QUARTER
    both = understand(
        "defaults: {gpu_hold_after_stop_h: 0.25}\ngroups: {a: {gpu_hold_after_stop: 1d}}",
        a="amy\n",
    )
    assert both.find_hold(UserName("amy")).seconds is None
    assert lines(both)[0].startswith("resource-limits.yaml: groups.a.gpu_hold_after_stop: is not")


@pytest.mark.parametrize(
    ("key", "written", "seconds", "problem"),
    [
        ("container_hold_after_stop_h", "0.5", 1800.0, ""),
        ("container_hold_after_stop_h", "null", None, ""),
        ("container_hold_after_stop_h", "0", 0.0, ""),
        ("container_hold_after_stop_h", "24h", DAY, "is at once for the lab's scripts: write 24"),
        ("container_hold_after_stop_h", "-1", None, "invalid duration -1"),
        ("idle_timeout_h", "24h", DAY, "is no limit for the lab's scripts: write 24"),
        ("idle_timeout_h", "0", None, "0 is no limit"),
        ("max_runtime_h", "24h", DAY, "is no limit for the lab's scripts: write 24"),
        ("max_runtime_h", '"24"', DAY, ""),
        ("max_runtime_h", "null", None, ""),
    ],
)
def test_when_the_scripts_act(
    understand: Edit, key: str, written: str, seconds: float | None, problem: str
) -> None:
    limits = understand(f"defaults: {{{key}: {written}}}")
    life = limits.find_lifecycle(UserName("amy"))
    assert {
        "container_hold_after_stop_h": life.removal_after_stop_s,
        "idle_timeout_h": life.idle_timeout_s,
        "max_runtime_h": life.max_runtime_s,
    }[key] == seconds
    assert [problem in line and f"defaults.{key}: " in line for line in lines(limits)] == [
        True
    ] * bool(problem)


def test_lifecycles_of_types(understand: Edit) -> None:
    limits = read(RUNTIME)
    user = UserName("root1")
    idle = {type_: limits.find_lifecycle(user, type_).idle_timeout_s for type_ in ContainerType}
    assert idle == {
        "devcontainer": None, "compose": 1800.0, "docker": 1800.0, "api": None,
        "unknown": QUARTER, "atomic": HOUR, "orchestration": HOUR,
    }  # fmt: skip
    odd = understand(
        "defaults: {max_runtime_h: 1}\n"
        "container_types: {api: {idle_timeout: 1}, jobs: {}, docker: 5, compose: }"
    )
    assert [line.partition(": ")[2] for line in lines(odd)] == [
        "container_types.api.idle_timeout: is not read; did you mean idle_timeout_h?",
        "container_types.jobs: unknown type of container",
        "container_types.docker: expected a mapping, got 5",
    ]


def test_jobs_and_deployed_containers_are_free_when_they_stop() -> None:
    limits = read(RUNTIME)
    seconds = {type_: limits.find_hold(UserName("bob"), type_).seconds for type_ in ContainerType}
    assert {type_ for type_, hold in seconds.items() if hold == 0} == {"api", "orchestration"}
    assert set(seconds.values()) == {0.0, QUARTER}


@pytest.mark.parametrize(
    ("written", "limit", "problem"),
    [
        ("{gpu_limit: 2.0}", Fraction(2), ""),
        ("{gpu_limit: null}", None, ""),
        ("{gpu_limit: unlimited}", None, ""),
        ("{cpu_quota: '100%'}", None, ""),
        ("null", None, ""),
        ("{gpu_limit: lots}", Fraction(1), "aggregate.gpu_limit: invalid number 'lots'"),
        ("[2]", Fraction(1), "aggregate: expected a mapping"),
    ],
)
def test_aggregates(understand: Edit, written: str, limit: Fraction | None, problem: str) -> None:
    limits = understand(f"groups: {{a: {{max_gpu_slots: 9, aggregate: {written}}}}}", a="amy\n")
    assert quota_of(limits, "amy").aggregate == limit
    assert [f"groups.a.{problem}" in line for line in lines(limits)] == [True] * bool(problem)


def test_other_values_that_are_invalid_are_reported(understand: Edit) -> None:
    limits = understand(
        "defaults: {max_runtime_h: 1, memory: lots, priority: 3}\n"
        "groups: {a: {memory: 1g, max_containers_per_user: many, priority: high}}",
        a="amy\n",
    )
    assert limits.find_priority(UserName("amy")) == 3
    assert [line.partition(": ")[2].partition(" ")[0] for line in lines(limits)] == [
        "groups.a.priority:",
        "groups.a.max_containers_per_user:",
        "defaults.memory:",
    ]


def test_an_override_has_its_own_aggregate_or_that_of_its_group(understand: Edit) -> None:
    limits = understand(
        "groups: {student: {aggregate: {gpu_limit: 2}}, a: {aggregate: {gpu_limit: 4}}}",
        a="amy\nbob\n",
        overrides="amy: {aggregate: {gpu_limit: 5}}\nbob: {}\n"
        "dora: {max_gpu_equivalents: 3}\nemil: {max_gpu_equivalents: 2}",
    )
    found = {user: quota_of(limits, user).aggregate for user in limits.groups}
    assert found == {"amy": 5, "bob": 4, "dora": None, "emil": None}
    # Only where the lab's scripts refuse what the override gives.
    assert lines(limits) == [
        (
            "user-overrides.yaml: user_overrides.dora.aggregate: missing, so the lab's scripts hold"
            " dora to gpu_limit 2 of the default group: write gpu_limit: 3"
        )
    ]


def test_exemptions(understand: Edit) -> None:
    limits = understand(
        "defaults: {max_runtime_h: 1}",
        exemptions="""
exemptions:
  - {username: amy, exempt_from: [max_runtime_h], expires_on: 2026-12-31T23:59:59Z}
  - {username: bob, exempt_from: [idle_timeout], expires_on: null}
  - {username: carl, exempt_from: [max_runtime_h], expires_on: "soon"}
  - {username: dora, exempt_from: max_runtime_h}
  - {exempt_from: [max_runtime_h]}
  - {username: emil, exempt_from: [max_runtime_h], expires_on: "2026-01-01T00:00:00Z"}
  - {username: fay, exempt_from: [max_runtime_h], expires_on: "2027-01-01"}
  - 7
""",
    )
    exempt = [u for u in ("amy", "bob", "carl", "dora", "emil", "fay")
              if limits.find_exemption(UserName(u), "max_runtime_h", NOW)]  # fmt: skip
    assert exempt == ["amy", "fay"]
    assert [line.partition(": ")[2].partition(":")[0] for line in lines(limits)] == [
        "exemptions[0].expires_on", "exemptions[1].exempt_from", "exemptions[2].expires_on",
        "exemptions[3].exempt_from", "exemptions[4].username", "exemptions[6].expires_on",
        "exemptions[7]", "exemptions[7].username",
    ]  # fmt: skip


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**6)
    | st.floats()
    | st.text("0123456789.hmdws -unlimted", max_size=9)
    | st.dates().map(str)
    | st.lists(st.integers(), max_size=1)
)


@given(st.dictionaries(st.sampled_from(LimitsFormat(hold_key="h", counts_gpus=True).keys), scalars))
def test_whatever_stands_there_gives_nobody_more_than_is_written(
    values: dict[object, object],
) -> None:
    raw: dict[object, object] = {
        "defaults": {"allow_full_gpu": True, "gpu_hold_after_stop_h": None, **values}
    }
    limits = resolve_limits(raw, "limits.yaml")
    quota, rule = quota_of(limits, "amy"), limits.find_hold(UserName("amy"))
    key = next((key for key in EQUIVALENTS_KEYS if key in values), None)
    is_unlimited = key is not None and values[key] in (None, "unlimited")
    assert quota.gpus is None or quota.gpus >= 0
    assert (quota.gpus is None) <= (
        is_unlimited or any('write "unl' in m for m in limits.passed_over)
    )
    hold = values.get("gpu_hold_after_stop_h")
    if rule.seconds is not None:
        assert isinstance(hold, int | float | str)
        assert rule.seconds >= 0
        assert rule.seconds > 0 or isinstance(hold, str)
    limits.find_lifecycle(UserName("amy"))
    limits.find_resources(UserName("amy"))


# --- the files -----------------------------------------------------------------------------------


def test_a_folder_without_the_other_files_is_read(tmp_path: Path) -> None:
    shutil.copy(RUNTIME / "resource-limits.yaml", tmp_path)
    limits = read(tmp_path)
    assert limits.groups == {}
    assert quota_of(limits, "amy").gpus == 2


def test_a_change_of_any_file_is_seen_and_has_a_version_of_its_own(folder: Path) -> None:
    limits = file_in(folder)
    before = limits.read()
    versions = {before.version} if isinstance(before, Limits) else set()
    for name in (
        "groups/student.members",
        "user-overrides.yaml",
        "group-overrides.txt",
        "lifecycle-exemptions.yaml",
        "resource-limits.yaml",
    ):
        with (folder / name).open("a") as file:
            file.write("# more\n")
        after = limits.read()
        assert isinstance(after, Limits)
        assert not after.is_part
        versions.add(after.version)
    assert len(versions) == 6


def test_a_list_of_members_without_its_end_counts_as_cut(folder: Path) -> None:
    limits = file_in(folder)
    limits.read()
    path = folder / "groups" / "researcher.members"
    path.write_bytes(path.read_bytes()[:30])
    after = limits.read()
    assert isinstance(after, Limits)
    assert after.is_part


@pytest.mark.parametrize("how", ["link", "folder", "fifo", "large"])
def test_members_that_cannot_be_read_are_unknown(folder: Path, how: str) -> None:
    spoil(folder / "groups" / "researcher.members", how)
    limits = file_in(folder).read()
    assert isinstance(limits, Unknown)
    assert "groups/researcher.members" in limits.reason


@pytest.mark.parametrize("name", ["groups/researcher.members", "user-overrides.yaml", "groups"])
@pytest.mark.parametrize("how", ["gone", "link", "folder", "fifo", "large", "zeros"])
def test_a_file_that_decides_and_is_no_longer_read_leaves_the_last_limits(
    folder: Path, name: str, how: str
) -> None:
    limits = file_in(folder)
    good = limits.read()
    assert isinstance(good, Limits)
    spoil(folder / name, how)
    after = limits.read()
    if (name, how) == ("groups", "folder"):
        assert isinstance(after, Limits)
        assert "admin.members is gone" in after.problem
        return
    assert isinstance(after, Limits)
    assert name.partition("/")[0] in after.problem
    assert after.find_gpu_quota(UserName("bob")) == good.find_gpu_quota(UserName("bob"))
    # Unknown is never empty: by the defaults the hold would be over in a quarter of an hour.
    rule = after.find_hold(UserName("bob"))
    assert (rule.seconds, rule.problem) == (None, after.problem)
    assert after.find_hold(UserName("bob"), ContainerType.API).seconds is None


def spoil(path: Path, how: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    match how:
        case "link":
            path.symlink_to("/proc/version")
        case "folder":
            path.mkdir()
        case "zeros":
            path.write_bytes(bytes(100))
        case "fifo":
            os.mkfifo(path)
        case "large":
            path.write_bytes(b"x\n" * (3 << 20))
        case _:
            pass


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [", "", "# nothing", "- 1", "\0",
        "defaults:\n  # max_gpu_equivalents: 1\ngroups: {a: {max_gpu_equivalents: 2}}",
        "defaults: {max_gpu_equivalents: 1}\ngroups:\n",
    ],
)  # fmt: skip
def test_a_file_that_is_broken_leaves_the_last_limits_else_none(folder: Path, text: str) -> None:
    path = folder / "resource-limits.yaml"
    limits = file_in(folder)
    good = limits.read()
    assert isinstance(good, Limits)
    path.write_text(text)
    after = limits.read()
    assert isinstance(after, Limits)
    assert after.problem.startswith(f"{path}: ")
    assert after.find_gpu_quota(UserName("bob")) == good.find_gpu_quota(UserName("bob"))
    fresh = file_in(folder).read()
    assert isinstance(fresh, Unknown)
    assert fresh.source is Source.LIMITS
    assert fresh.reason == after.problem
    shutil.copy(RUNTIME / path.name, path)
    again = limits.read()
    assert isinstance(again, Limits)
    assert again.problem == ""


def test_the_last_good_limits_outlive_a_restart(folder: Path) -> None:
    path = folder / "resource-limits.yaml"
    before = file_in(folder)
    assert before.export_copy() == b""
    good = before.read()
    assert isinstance(good, Limits)
    copy = before.export_copy()
    assert copy
    assert before.export_copy() == b""
    text = path.read_text()
    path.write_text("defaults: [")
    after = LimitsFile(path, NO_LIMITS)
    after.import_copy(copy)
    recalled = after.read()
    assert isinstance(recalled, Limits)
    assert "invalid YAML" in recalled.problem
    assert recalled.gpu_quotas == good.gpu_quotas
    # What is missing from the start is not what broke.
    path.unlink()
    fresh = LimitsFile(path, NO_LIMITS)
    fresh.import_copy(copy)
    assert fresh.read() is NO_LIMITS
    path.write_text(text)
    (folder / "groups" / "admin.members").unlink()
    gone = LimitsFile(path)
    gone.import_copy(copy)
    limits = gone.read()
    assert isinstance(limits, Limits)
    assert "admin.members is gone" in limits.problem
    (folder / "groups" / "admin.members").touch()
    emptied = gone.read()
    assert isinstance(emptied, Limits)
    assert (emptied.problem, emptied.is_part) == ("", True)
    assert emptied.find_group(UserName("root1")) == "student"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"path": "\xff", "files": {}}',
        b'{"path": "/x", "files": {}}',
        b"[" * 9999,
    ],
)
def test_a_copy_that_is_none_is_passed_over(folder: Path, data: bytes) -> None:
    (folder / "resource-limits.yaml").write_text("- 1")
    limits = file_in(folder)
    limits.import_copy(data)
    assert isinstance(limits.read(), Unknown)


def test_the_older_format_has_no_last_good_limits(folder: Path) -> None:
    """There a file that cannot be read refuses, as ever."""
    path = folder / "resource-limits.yaml"
    shutil.rmtree(folder / "groups")
    (folder / "user-overrides.yaml").unlink()
    path.write_text("defaults: {max_mig_instances: 2}")
    limits = LimitsFile(path)
    assert isinstance(limits.read(), Limits)
    path.write_text("defaults: [")
    assert isinstance(limits.read(), Unknown)


def test_a_section_of_comments_only_is_none_of_those(folder: Path) -> None:
    path = folder / "resource-limits.yaml"
    assert "gpu_allocation:\n  #" in path.read_text()
    assert read(folder).problem == ""


def test_more_lists_of_members_than_are_read_are_unknown(folder: Path) -> None:
    for number in range(201):
        (folder / "groups" / f"g{number}.members").touch()
    limits = file_in(folder).read()
    assert isinstance(limits, Unknown)
    assert "more than 200 files in groups" in limits.reason


def test_a_file_of_exemptions_that_is_broken_decides_nothing(folder: Path) -> None:
    (folder / "lifecycle-exemptions.yaml").write_text("exemptions: [")
    limits = read(folder)
    assert "lifecycle-exemptions.yaml: invalid YAML" in limits.passed_over[0]
    assert limits.exemptions == ()


def test_a_file_that_anybody_may_write_is_reported(folder: Path) -> None:
    (folder / "groups" / "admin.members").chmod(0o666)
    limits = read(folder)
    assert lines(limits) == ["admin.members: anybody may write it: chmod o-w"]


def test_a_path_that_is_out_of_date_is_named(folder: Path) -> None:
    """With Docker as the books a missing file is no limits at all."""
    path = folder.parent / "resource-limits.yaml"
    limits = LimitsFile(path, NO_LIMITS).read()
    assert isinstance(limits, Unknown)
    assert not limits.missing
    assert limits.reason.endswith(f"set books.limits to {folder / path.name}")
    path.write_text("defaults: {max_mig_instances: 2}\n")
    found = LimitsFile(path).read()
    assert isinstance(found, Limits)
    assert found.passed_over == (
        f"{path}: set books.limits to {folder / path.name}: it counts today",
    )
    assert LimitsFile(folder.parent / "none" / "x.yaml", NO_LIMITS).read() is NO_LIMITS


def test_a_file_that_is_gone_is_no_host_without_limits(folder: Path) -> None:
    path = folder / "resource-limits.yaml"
    limits = LimitsFile(path, NO_LIMITS)
    good = limits.read()
    assert isinstance(good, Limits)
    path.unlink()
    after = limits.read()
    assert isinstance(after, Limits)
    assert after.problem == f"{path} does not exist"
    assert after.gpu_quotas == good.gpu_quotas


def test_between_the_formats_there_was_one_that_counts_slots(understand: Edit) -> None:
    """As the older one, with members in files."""
    limits = understand(
        "defaults: {max_mig_instances: 3, max_mig_per_container: 3, allow_full_gpu: false,\n"
        "  max_runtime: 24h, idle_timeout: 0.5h, container_hold_after_stop: 0.5h,\n"
        "  gpu_hold_after_stop: 0.25h, max_tasks: 9}\n"
        "groups: {a: {aggregate: {gpu_limit: 3}, max_mig_instances: 6}}\n"
        "container_types: {docker: {idle_timeout: 30m, default_mig_count: {a: 1}}}\n",
        a="amy\n",
    )
    assert limits.find_gpu_quota(UserName("amy")) is None
    assert (limits.find_quota(UserName("amy")), limits.find_quota(UserName("zoe"))) == (6, 3)
    assert limits.find_hold(UserName("amy")).seconds == QUARTER
    assert limits.passed_over == ()


def test_the_older_format_counts_slots(understand: Edit) -> None:
    limits = understand(
        "defaults: {max_mig_instances: 2}\ngroups: {a: {members: [amy], max_gpus_per_user: 4}}"
    )
    assert limits.find_quota(UserName("amy")) == 4
    assert limits.find_gpu_quota(UserName("amy")) is None
    assert limits.find_hold(UserName("amy")).seconds == DAY
    assert limits.find_hold(UserName("amy"), ContainerType.API).seconds == DAY
