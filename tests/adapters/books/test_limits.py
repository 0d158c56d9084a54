"""The limits: whatever is ambiguous ends no hold, and harms only those whom it concerns."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books.hold_durations import parse_hold
from ds01d.adapters.books.limits import LimitsFile
from ds01d.adapters.books.strict_yaml import DuplicateKey, read_yaml
from ds01d.adapters.files.safe_read import Signature
from ds01d.errors import Malformed
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import Source, Unknown, UserName
from ds01d.reconcile.books_ports import LimitsPort

SAMPLE = Path(__file__).parents[2] / "data" / "resource-limits.yaml"
REPORTS = Path(__file__).parents[2] / "data" / "reports"
DAY = 86_400.0

Read = Callable[[str | bytes], "Limits | Unknown"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for quiet at once; the test of quietness sets it back."""
    monkeypatch.setattr("ds01d.adapters.books.limits_files._QUIET_S", 0.0)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(text: str | bytes) -> Limits | Unknown:
        path = tmp_path / "limits.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return LimitsFile(path).read()

    return write_and_read


def hold(limits: Limits | Unknown, user: str) -> HoldRule:
    assert isinstance(limits, Limits)
    return limits.find_hold(UserName(user))


# --- durations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("24h", DAY),
        ("0.25h", 900),
        (".5h", 1800),
        ("1d", DAY),
        ("30m", 1800),
        ("36s", 36),
        ("1w", 7 * DAY),
        ("1h30m", 5400),
        ("1d 12h", 1.5 * DAY),
        ("24", DAY),
        ("0.5", 1800),
        ("0", 0),
        ("0h", 0),
        (None, None),
        ("", None),
        ("never", None),
        ("Indefinite", None),
    ],
)
def test_a_duration_is_understood(written: object, seconds: float | None) -> None:
    assert parse_hold(written).seconds == seconds
    assert parse_hold(written).problem == ""


@pytest.mark.parametrize(
    "written",
    [
        0,
        24,
        0.5,
        True,
        False,
        [],
        {},
        "1M",
        "1y",
        "-1h",
        "h",
        "1h1h",
        "1e3",
        "1h x",
        "٣h",
        "9" * 400,
        "1,5h",
        "24 hours",
        float("nan"),
        float("inf"),
        DuplicateKey(),
    ],
)
def test_what_is_no_duration_lasts_for_ever_and_says_so(written: object) -> None:
    duration = parse_hold(written)
    assert duration.seconds is None
    assert duration.problem


@given(
    st.permutations("smhdw").flatmap(
        lambda units: st.lists(st.integers(0, 99), min_size=1, max_size=5).map(
            lambda numbers: list(zip(numbers, units, strict=False))
        )
    )
)
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    duration = parse_hold("".join(f"{number}{unit}" for number, unit in parts))
    assert duration.seconds == sum(number * seconds[unit] for number, unit in parts)


@given(st.text(max_size=20))
def test_no_text_gives_a_short_hold_by_mistake(text: str) -> None:
    duration = parse_hold(text)
    assert duration.seconds is None or any(sign in "0123456789" for sign in text)


# --- who gets what ----------------------------------------------------------------------------


def test_the_sample_is_resolved() -> None:
    port: LimitsPort = LimitsFile(SAMPLE)
    limits = port.read()
    assert isinstance(limits, Limits)
    holds = {user: rule.seconds for user, rule in limits.holds.items()}
    assert holds == {
        "alice": 900,
        "bob": 900,
        "rosa": DAY,
        "datasciencelab": None,
        "john_doe": 900,
    }
    assert hold(limits, "rosa").source == "groups.researcher.gpu_hold_after_stop"
    assert not any(rule.problem for rule in limits.holds.values())
    assert [
        limits.find_priority(UserName(user)) for user in ("alice", "rosa", "john_doe", "x")
    ] == [
        10,
        50,
        100,
        10,
    ]


def test_a_user_whom_nobody_names_has_the_default_group_and_nothing_is_unclear() -> None:
    rule = hold(LimitsFile(SAMPLE).read(), "stranger")
    assert rule == HoldRule(seconds=900, source="defaults.gpu_hold_after_stop")


def test_where_the_user_is_not_known_what_is_assumed_is_said(read: Read) -> None:
    limits = LimitsFile(SAMPLE).read()
    assert isinstance(limits, Limits)
    assert limits.find_hold(None).seconds == 900
    assert (
        "user is not known: the default group student is assumed" in limits.find_hold(None).problem
    )
    limits = read("defaults: {gpu_hold_after_stop: 2h}")
    assert isinstance(limits, Limits)
    assert limits.find_hold(None).seconds == 7200
    assert "defaults are assumed" in limits.find_hold(None).problem


def test_a_missing_key_is_a_day_and_null_is_for_ever(read: Read) -> None:
    limits = read("groups: {a: {members: [ada]}, b: {members: [bob], gpu_hold_after_stop: null}}")
    assert hold(limits, "ada") == HoldRule(seconds=DAY, source="built in")
    assert hold(limits, "bob").seconds is None
    assert hold(limits, "bob").problem == ""


def test_sections_may_be_null(read: Read) -> None:
    limits = read("defaults:\ngroups:\n  a:\n  b:\n    members:\nuser_overrides:\n  ada:\n")
    assert isinstance(limits, Limits)
    assert limits.holds == {UserName("ada"): HoldRule(seconds=DAY, source="built in")}


def test_an_override_takes_the_place_of_the_group(read: Read) -> None:
    limits = read("""
defaults: {gpu_hold_after_stop: 1h}
groups:
  a: {members: [ada, bob], gpu_hold_after_stop: 2h, priority: 7}
  b: {members: [ada]}
user_overrides:
  ada: {priority: 5}
  eve: {gpu_hold_after_stop: 3h}
""")
    assert hold(limits, "ada") == HoldRule(seconds=3600, source="defaults.gpu_hold_after_stop")
    assert hold(limits, "bob").seconds == 7200
    assert hold(limits, "eve").seconds == 10_800


def test_names_of_digits_are_names(read: Read) -> None:
    limits = read("groups: {7: {members: [1001], gpu_hold_after_stop: 1h}}\ndefault_group: 7")
    assert hold(limits, "1001").seconds == 3600
    assert hold(limits, "x").seconds == 3600


LOGINS = (
    "012345",
    "2023_01",
    "0x1f",
    "1:30",
    "+49",
    "007",
    "1_0.5",
    ".5",
    "0b11",
    "2024-01-01",
    "1.50",
)


@pytest.mark.parametrize("login", [*LOGINS, "null", "1e3", "190:20:30", ".inf"])
def test_a_login_is_what_stands_in_the_file(read: Read, login: str) -> None:
    """YAML reads all of these as something else: numbers, fractions, dates, nothing."""
    limits = read(f"""
defaults: {{gpu_hold_after_stop: 15m}}
default_group: {login}
groups:
  research: {{gpu_hold_after_stop: 7d, members: [ada, {login}]}}
  {login}: {{gpu_hold_after_stop: 1h}}
user_overrides:
  x{login}: {{}}
""")
    assert isinstance(limits, Limits)
    assert set(limits.holds) == {"ada", login, f"x{login}"}
    assert hold(limits, login).seconds == 7 * DAY
    assert hold(limits, "stranger").seconds == (900 if login == "null" else 3600)


@pytest.mark.parametrize("login", [*LOGINS, "null", "on", "yes", "~", "="])
def test_an_override_is_for_the_login_that_stands_in_the_file(read: Read, login: str) -> None:
    limits = read(f"user_overrides:\n  {login}: {{gpu_hold_after_stop: 30d, priority: 7}}")
    assert isinstance(limits, Limits)
    assert set(limits.holds) == {login}
    assert hold(limits, login).seconds == 30 * DAY
    assert type(next(iter(limits.holds))) is str


def test_the_reported_file_gives_nobody_the_rule_of_somebody_else() -> None:
    limits = LimitsFile(REPORTS / "limits-numeric-users.yaml").read()
    assert isinstance(limits, Limits)
    week = {user for user, rule in limits.holds.items() if rule.seconds == 7 * DAY}
    assert week == {"012345", "2023_01", "0x1f", "1:30", "+49"}
    assert hold(limits, "007").seconds == 30 * DAY
    read_as = ("5349", "202301", "31", "90", "49", "7")
    assert {hold(limits, user).seconds for user in read_as} == {900}


def test_one_login_written_in_two_ways_is_two_logins(read: Read) -> None:
    limits = read("user_overrides: {7: {gpu_hold_after_stop: 1h}, 07: {gpu_hold_after_stop: 2h}}")
    assert (hold(limits, "7").seconds, hold(limits, "07").seconds) == (3600, 7200)
    twice = read('user_overrides: {7: {gpu_hold_after_stop: 1h}, "7": {gpu_hold_after_stop: 2h}}')
    assert hold(twice, "7").seconds is None
    assert "duplicate key" in hold(twice, "7").problem


# --- keys that look like ours --------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "gpu_hold_after_stop_m", "gpu-hold-after-stop", "gpuHoldAfterStop", "GPU_HOLD_AFTER_STOP",
        "gpu_hold_after_sotp", "gpu_hold", "gpu_hold_time", "gpu_hold_after_stop_seconds",
    ],
)  # fmt: skip
def test_a_look_alike_of_the_hold_ends_no_hold(read: Read, key: str) -> None:
    limits = read(f"""
defaults: {{{key}: 1s}}
groups:
  a: {{members: [ada]}}
  b: {{members: [bob], gpu_hold_after_stop: 1h, {key}: 1s}}
user_overrides: {{eve: {{{key}: 1s}}, joe: {{}}}}
""")
    where = f"defaults.{key}: is not read; did you mean gpu_hold_after_stop?"
    assert endless(limits, key=where, but="bob") == {"ada", "joe", "?"}
    assert "user_overrides.eve" in hold(limits, "eve").problem
    assert isinstance(limits, Limits)
    places = [why.partition("limits.yaml: ")[2].partition(":")[0] for why in limits.passed_over]
    assert places == [f"defaults.{key}", f"groups.b.{key}", f"user_overrides.eve.{key}"]


def test_the_later_format_is_read() -> None:
    limits = LimitsFile(REPORTS / "limits-later-format.yaml").read()
    assert isinstance(limits, Limits)
    assert hold(limits, "anybody") == HoldRule(
        seconds=900.0, source="defaults.gpu_hold_after_stop_h"
    )
    quota = limits.find_gpu_quota(UserName("anybody"))
    assert quota is not None
    assert quota.gpus == 2
    assert limits.passed_over == ()


@pytest.mark.parametrize(
    ("text", "key", "whose"),
    [
        (
            "default: {gpu_hold_after_stop: 1s}\ngroups: {a: {members: [ada]}}",
            "default",
            {"ada", "?"},
        ),
        ("group: {a: {members: [ada], gpu_hold_after_stop: 1h}}", "group", {"?"}),
        ("groups: {a: {member: [ada], gpu_hold_after_stop: 1h}}", "groups.a.member", {"?"}),
        ("groups: {a: {members_file: a.members}}", "groups.a.members_file", {"?"}),
        ("default-group: a\ngroups: {a: {gpu_hold_after_stop: 1h}}", "default-group", {"?"}),
        ("user-overrides: {ada: {}}\ngroups: {a: {members: [bob]}}", "user-overrides", {"?"}),
    ],
)
def test_a_look_alike_of_a_section(read: Read, text: str, key: str, whose: set[str]) -> None:
    limits = read(text)
    assert endless(limits, key=f"limits.yaml: {key}: is not read; did you mean") == whose
    assert isinstance(limits, Limits)
    assert len(limits.passed_over) == 1


def test_a_look_alike_beside_the_real_key_is_only_reported(read: Read) -> None:
    limits = read("""
default: {gpu_hold_after_stop: 1s}
defaults: {gpu_hold_after_stop: 1h, gpu_hold_after_stop_m: 2, max_gpu: 4, priorty: 3}
groups: {a: {members: [ada], member: [eve]}}
""")
    assert hold(limits, "ada").seconds == hold(limits, "eve").seconds == 3600
    assert isinstance(limits, Limits)
    assert [why.partition("did you mean ")[2] for why in limits.passed_over] == [
        "defaults?", "gpu_hold_after_stop?", "max_gpus_per_user?", "priority?", "members?",
    ]  # fmt: skip


OTHERS = (
    "gpu_memory", "container_hold_after_stop", "idle_timeout", "max_runtime", "max_cpus", "memory",
    "memory_swap", "shm_size", "pids_limit", "max_tasks", "policies", "max_containers_per_user",
    "reason", "storage_workspace",
)  # fmt: skip
OTHERS_TODAY = (
    "max_gpu_equivalents", "max_gpu_slots_per_container", "max_gpus_per_container", "gpu_memory",
    "max_mig_per_container", "allow_full_gpu", "idle_timeout_h", "container_hold_after_stop_h",
    "max_runtime_h", "max_cpus", "memory", "memory_swap", "shm_size", "pids_limit", "max_tasks",
    "aggregate", "policies", "max_containers_per_user", "reason", "storage_workspace",
)  # fmt: skip
OTHER_SECTIONS = (
    "enforcement", "monitoring", "bare_metal_access", "access_control", "container_types",
    "exemptions", "policies",
)  # fmt: skip


@pytest.mark.parametrize("names", [OTHERS, OTHERS_TODAY])
def test_what_the_lab_has_beside_looks_like_nothing_of_ours(
    read: Read, names: tuple[str, ...]
) -> None:
    """Keys of the two formats that are known, each beside what is read."""
    sample = LimitsFile(SAMPLE).read()
    assert isinstance(sample, Limits)
    assert sample.passed_over == ()
    keys = ", ".join(f"{key}: null" for key in names)
    limits = read(
        f"defaults: {{{keys}}}\ngroups: {{a: {{{keys}}}}}\nuser_overrides: {{ada: {{{keys}}}}}\n"
        + "".join(f"{key}: {{}}\n" for key in OTHER_SECTIONS)
    )
    assert isinstance(limits, Limits)
    assert limits.passed_over == ()


# --- what is ambiguous ------------------------------------------------------------------------


def endless(limits: Limits | Unknown, *, key: str, but: str = "") -> set[str]:
    """Whose hold does not end for a reason that names this key; `but` must not be among them."""
    assert isinstance(limits, Limits)
    rules = {str(user): rule for user, rule in limits.holds.items()}
    rules["?"] = limits.unknown_user
    if but:
        assert rules[but].seconds == 3600
        assert not rules[but].problem
    found = {user for user, rule in rules.items() if rule.seconds is None and key in rule.problem}
    assert all("limits.yaml: " in rules[user].problem for user in found)
    return found


def test_a_bare_number_concerns_those_who_would_take_it(read: Read) -> None:
    limits = read("""
defaults: {gpu_hold_after_stop: 0}
groups:
  a: {members: [ada]}
  b: {members: [bob], gpu_hold_after_stop: 1h}
""")
    assert endless(limits, key="defaults.gpu_hold_after_stop: 0", but="bob") == {"ada", "?"}


def test_a_user_in_two_groups(read: Read) -> None:
    limits = read("""
groups:
  a: {members: [ada, bob, bob], gpu_hold_after_stop: 1h}
  b: {members: [ada], gpu_hold_after_stop: 1h}
""")
    assert endless(limits, key="groups.a.members and groups.b.members", but="bob") == {"ada"}


def test_an_unknown_default_group(read: Read) -> None:
    limits = read("""
default_group: b
groups: {a: {members: [ada], gpu_hold_after_stop: 1h}}
""")
    assert endless(limits, key="default_group", but="ada") == {"?"}


@pytest.mark.parametrize("groups", ["", "groups:", "groups: {}", "groups: {a: }"])
def test_a_default_group_where_there_are_no_groups_has_no_settings(read: Read, groups: str) -> None:
    """A section that is null is an empty one."""
    limits = read(f"default_group: a\ndefaults: {{gpu_hold_after_stop: 1h}}\n{groups}")
    assert hold(limits, "ada") == HoldRule(seconds=3600, source="defaults.gpu_hold_after_stop")
    assert isinstance(limits, Limits)
    assert limits.unclear == limits.passed_over == ()


@pytest.mark.parametrize("name", ["[a]", "yes", "{}"])
def test_a_default_group_that_is_no_name(read: Read, name: str) -> None:
    assert endless(read(f"default_group: {name}\ngroups:"), key="default_group: unknown") == {"?"}


@pytest.mark.parametrize(
    ("broken", "key"),
    [("[1]", "groups.b"), ("{members: eve}", "groups.b.members"), ("{members: [yes]}", "members")],
)
def test_a_group_whose_members_are_not_known_may_hold_anybody_else(
    read: Read, broken: str, key: str
) -> None:
    limits = read(f"""
default_group: a
groups:
  a: {{members: [ada], gpu_hold_after_stop: 1h}}
  b: {broken}
""")
    assert endless(limits, key=key, but="ada") == {"?"}


@pytest.mark.parametrize(
    ("text", "key", "whose"),
    [
        ("defaults: 1h\ngroups: {a: {members: [ada]}}", "defaults", {"ada", "?"}),
        ("groups: [ada]\nuser_overrides: {ada: {}}", "groups", {"?"}),
        ("user_overrides: [ada]\ngroups: {a: {members: [ada]}}", "user_overrides", {"?"}),
        ("user_overrides: {ada: 1h, bob: {gpu_hold_after_stop: 1h}}", "overrides.ada", {"ada"}),
    ],
)
def test_a_section_that_is_none(read: Read, text: str, key: str, whose: set[str]) -> None:
    assert endless(read(text), key=key) == whose


@pytest.mark.parametrize(
    ("text", "key", "whose"),
    [
        ("{g: {members: [ada], gpu_hold_after_stop: 1h, gpu_hold_after_stop: 2h}}", "_stop", "ada"),
        ("{g: {members: [ada], members: [bob]}}", "groups.g.members", "?"),
        ("{g: {members: [ada]}, g: {members: [bob]}}", "groups.g", "?"),
        ("{}\ngroups: {g: {members: [ada]}}", "groups", "?"),
    ],
)
def test_a_key_that_stands_twice(read: Read, text: str, key: str, whose: str) -> None:
    assert endless(read(f"groups: {text}"), key=key) == {whose}
    assert "duplicate key" in hold(read(f"groups: {text}"), whose).problem


def test_keys_that_stand_twice_elsewhere_are_none_of_our_business(read: Read) -> None:
    limits = read("defaults: {max_cpus: 1, max_cpus: 2, gpu_hold_after_stop: 1h}\nx: {y: 1, y: 2}")
    assert hold(limits, "x").seconds == 3600


def test_merge_keys_are_no_doubles(read: Read) -> None:
    limits = read("""
base: &base {gpu_hold_after_stop: 1h, priority: 3}
groups:
  a: {<<: *base, members: [ada], priority: 4}
  b: {<<: [*base], members: [bob]}
""")
    assert hold(limits, "ada").seconds == hold(limits, "bob").seconds == 3600
    assert isinstance(limits, Limits)
    assert limits.find_priority(UserName("ada")) == 4


def test_a_repeated_merge_of_the_same_few_keys_is_no_bomb(read: Read) -> None:
    """Ten to the power of 14 pairs for a loader that does not drop what it has already."""
    limits = read(
        "m0: &m0 {gpu_hold_after_stop: 1h}\n"
        + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 15))
        + "groups: {a: {<<: *m14, members: [ada]}}"
    )
    assert hold(limits, "ada").seconds == 3600


@pytest.mark.parametrize("key", ["k", "gpu_hold_after_stop", "longer than an interned name"])
@pytest.mark.parametrize(
    ("merge", "value"),
    [
        ("<<: [*a, *b]", "a"),
        ("<<: [*b, *a]", "b"),
        ("<<: [*c, *a, *b]", "a"),
        ("<<: [*nested, *b]", "a"),
        ("<<: [*b, *nested]", "b"),
        ("<<: *nested", "a"),
        ("<<: [*a, *a]", "a"),
        ("KEY: own, <<: [*a, *b]", "own"),
        ("<<: [*a, *b], KEY: own", "own"),
        ("<<: [*over, *b]", "over"),
        ("<<: [*b, *over]", "b"),
    ],
)
def test_an_earlier_merge_wins_and_an_own_key_over_all(key: str, merge: str, value: str) -> None:
    """PyYAML 6.0.3 and 6.0.4 differ; https://yaml.org/type/merge.html says which is right."""
    text = f"""
a: &a {{KEY: a, x: 1}}
b: &b {{KEY: b, y: 2}}
c: &c {{z: 3}}
nested: &nested {{<<: [*c, *a, *b]}}
over: &over {{KEY: over, <<: [*a, *b]}}
m: {{{merge}}}
"""
    read = read_yaml(text.replace("KEY", key).encode(), "file")
    assert read["m"][key] == value
    assert read["nested"][key] == "a"
    assert read["over"] == {key: "over", "x": 1, "y": 2}


def test_what_two_merge_keys_say_differently_is_said_twice() -> None:
    read = read_yaml(
        b"a: &a {k: 1, x: 1}\nb: &b {k: 2, y: 1}\nm: {<<: *a, <<: *b}\nn: {<<: *a, <<: *b, k: 3}",
        "file",
    )
    assert isinstance(read["m"].pop("k"), DuplicateKey)
    assert read["m"] == {"x": 1, "y": 1}
    assert read["n"] == {"k": 3, "x": 1, "y": 1}


@pytest.mark.parametrize("value", ["1", "[1]", "[*a, x]", "~"])
def test_a_merge_of_no_mapping_is_refused(value: str) -> None:
    with pytest.raises(Malformed, match="line 2"):
        read_yaml(f"a: &a {{k: 1}}\nm: {{<<: {value}}}".encode(), "file")


# --- the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "- 1",
        "text",
        "a: [",
        "a: b: c",
        "x: !!python/object:os.system {}",
        "x: 2026-99-99",
        "\0",
        "{a: 1, [b]: 2}",
        "--- {}\n--- {}",
    ],
)
def test_what_is_no_mapping_is_unknown(read: Read, text: str) -> None:
    limits = read(text)
    assert isinstance(limits, Unknown)
    assert limits.source is Source.LIMITS
    assert "limits.yaml" in limits.reason


def test_what_is_no_text_is_unknown(read: Read) -> None:
    assert isinstance(read(b"a: \xff"), Unknown)
    assert isinstance(read(b"#" * ((4 << 20) + 1)), Unknown)


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 1_000_000,
        "a: &a [x]\nb: [" + "*a," * 2000 + "]",
        "".join(
            f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}], "
            + ", ".join(f"key {n} {i}: 1" for i in range(20))
            + "}\n"
            if n
            else "m0: &m0 {k: 1}\n"
            for n in range(15)
        )
        + "groups: {a: {<<: *m14}}",
    ],
    ids=["depth", "aliases", "merges"],
)
def test_bombs_do_not_go_off(read: Read, bomb: str) -> None:
    began = time.monotonic()
    limits = read(bomb)
    assert time.monotonic() - began < 60, "one that goes off takes for ever"
    assert isinstance(limits, Unknown)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "link"])
def test_a_file_that_cannot_be_read_is_unknown(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "limits.yaml"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(SAMPLE)
        case _:
            pass
    limits = LimitsFile(path).read()
    assert isinstance(limits, Unknown)
    assert str(path) in limits.reason


def test_it_is_parsed_again_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("defaults: {gpu_hold_after_stop: 1h}")
    limits = LimitsFile(path)
    monkeypatch.setattr("ds01d.adapters.files.safe_read.time.time_ns", lambda: 2**62)
    first = limits.read()
    with monkeypatch.context() as context:
        context.setattr("ds01d.adapters.books.limits.read_yaml", lambda *_: pytest.fail("parsed"))
        assert limits.read() is first
    path.write_text("defaults: {gpu_hold_after_stop: 2h}")
    assert hold(limits.read(), "x").seconds == 7200


def test_a_file_that_is_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a YAML file is valid: it would name fewer users, and end their holds."""
    path = tmp_path / "limits.yaml"
    path.write_text("defaults: {gpu_hold_after_stop: 1h}\n")
    waits: list[float] = []

    def write_on(seconds: float) -> None:
        waits.append(seconds)
        with path.open("a") as file:
            file.write("groups: {a: {members: [ada], gpu_hold_after_stop: null}}\n")
        monkeypatch.setattr("ds01d.adapters.files.safe_read.time.time_ns", lambda: 2**62)

    monkeypatch.setattr("ds01d.adapters.books.limits_files._QUIET_S", 3600.0)
    monkeypatch.setattr("ds01d.adapters.books.limits_files.time.sleep", write_on)
    assert hold(LimitsFile(path).read(), "ada").seconds is None
    assert len(waits) == 1


def test_one_slow_look_at_a_file_written_once_is_no_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("defaults: {gpu_hold_after_stop: null}\n")
    clock = itertools.count(0.0, 60.0)  # seconds: each look takes a minute

    class Time:
        monotonic = staticmethod(lambda: next(clock))
        sleep = staticmethod(lambda _seconds: None)

    monkeypatch.setattr("ds01d.adapters.books.limits_files.time", Time)
    written_just_now = iter([True, True])
    monkeypatch.setattr(Signature, "is_racy", lambda *_: next(written_just_now, False))
    assert hold(LimitsFile(path).read(), "ada").seconds is None


def test_a_file_that_is_written_all_the_time_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("{}")
    monkeypatch.setattr("ds01d.adapters.books.limits_files._QUIET_S", 3600.0)
    monkeypatch.setattr("ds01d.adapters.books.limits_files.time.sleep", lambda _s: None)
    assert isinstance(LimitsFile(path).read(), Unknown)


@given(st.binary(max_size=60) | st.text("ab:{}[]&*<-, \n'\"!|>?0", max_size=60).map(str.encode))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    assert said_of(data).startswith("file: ")


def said_of(data: bytes) -> str:
    try:
        read_yaml(data, "file")
    except Malformed as error:
        return str(error)
    return "file: read"
