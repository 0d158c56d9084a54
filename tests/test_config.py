"""The configuration: its defaults, what is refused and in which words, what is only risky."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds01d import config_text
from ds01d.config import Config, Policy
from ds01d.config_checks import describe_risks
from ds01d.config_file import ENVIRONMENT, load_config, parse_config
from ds01d.config_values import Seconds
from ds01d.errors import ConfigError

ROOT = Path(__file__).parents[1]


def keys() -> dict[str, object]:
    """Every key that the structs have, with its default."""
    return {
        f"{table.encode_name}.{key.encode_name}": key.default
        for table in msgspec.structs.fields(Config)
        for key in msgspec.structs.fields(table.type)
    }


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, origin="x.toml")
    return str(caught.value)


def test_the_shipped_file_holds_every_key_with_its_default() -> None:
    text = (ROOT / "etc/ds01d.toml").read_text()
    assert parse_config(text, origin="etc/ds01d.toml") == Config()
    raw = msgspec.toml.decode(text)
    assert {f"{table}.{key}" for table in raw for key in raw[table]} == set(keys())


def test_each_key_of_the_shipped_file_has_a_comment_above_it() -> None:
    lines = (ROOT / "etc/ds01d.toml").read_text().splitlines()
    for above, line in pairwise(lines):
        assert not re.match(r"\w+ = ", line) or above.startswith("# "), line


def test_the_documentation_has_every_key_with_its_default() -> None:
    raw = msgspec.toml.decode((ROOT / "etc/ds01d.toml").read_text())
    told: dict[str, object] = {}
    table = ""
    for line in (ROOT / "docs/configuration.md").read_text().splitlines():
        if header := re.match(r"## `\[(\w+)\]`", line):
            table = header[1]
        elif row := re.match(r"\| `(\w+)` \| `([^`]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", line):
            told[f"{table}.{row[1]}"] = msgspec.toml.decode(f"x = {row[2]}")["x"]
    assert told == {f"{name}.{key}": value for name in raw for key, value in raw[name].items()}


def test_an_empty_file_means_the_defaults() -> None:
    assert parse_config("", origin="x") == Config()


def test_durations_are_kept_in_seconds() -> None:
    config = parse_config(
        '[policy]\nsettle = "500ms"\nabsence_grace = "1h30m"\nfreeze = "1.5s"', origin="x"
    )
    assert config.policy == Policy(
        settle_s=Seconds(0.5), absence_grace_s=Seconds(5400), freeze_s=Seconds(1.5)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[policy]\nsettle = "5"', 'x.toml, line 2: policy.settle: invalid duration "5": write a'),
        ("[policy]\n\nsettle = 5", "x.toml, line 3: policy.settle: invalid duration 5"),
        ('[policy]\nsettle = "-5s"', "invalid duration"),
        ('[policy]\nsettle = "5 s"', "invalid duration"),
        ('[policy]\nsettle = "٥s"', "invalid duration"),
        ("[policy]\nsettle = nan", "invalid duration nan"),
        ("[policy]\nsettle = true", "invalid duration True"),
        ('[policy]\nsettle = "9999999d"', 'is too long: write at most "366d"'),
        (f'[policy]\nsettle = "{"9" * 400}d"', "is too long"),
        ('[docker]\ntimeot = "5s"', "line 2: docker.timeot: unknown key: did you mean timeout?"),
        ('docker.timeot = "5s"', "line 1: docker.timeot: unknown key"),
        ("[docker]\nxyzzy = 1", "unknown key: known are url, timeout"),
        ('[dokcer]\nurl = ""', "line 1: dokcer: unknown table: did you mean docker?"),
        ("a = 1", "line 1: a: unknown table"),
        ("docker = 3", "line 1: docker: is a table: write [docker]"),
        ('[daemon]\nmode = "watch"', '"watch" is not possible: write "repair" or "observe"'),
        ("[daemon]\nmode = []", '[] is not possible: write "repair" or "observe"'),
        ('[books]\nstate = "gpu.json"', 'invalid path "gpu.json"'),
        ("[books]\nstate = 3", "invalid path 3"),
        ('[books]\nstate = "/a\\nb"', 'invalid path "/a?b"'),
        ("[policy]\npace_count = 2.5", "policy.pace_count: Expected `int`, got `float`"),
        ("[policy]\npace_count = true", "Expected `int`, got `bool`"),
        ("[policy]\npace_count = -1", "policy.pace_count: write a whole number from 0"),
        (f"[policy]\npace_count = {'9' * 40}", "policy.pace_count"),
        ("[policy]\npace_fraction = 1.01", "policy.pace_fraction: write a fraction from 0 to 1"),
        ("[policy]\npace_fraction = -0.1", "policy.pace_fraction: write a fraction"),
        ("[policy]\npace_fraction = nan", "policy.pace_fraction: write a fraction"),
        ("[policy]\npace_fraction = inf", "policy.pace_fraction: write a fraction"),
        ('[policy]\npace_window = "0s"', "policy.pace_window: zero cannot work"),
        ('[policy]\nabsence_grace = "4s"', "shorter than policy.settle: write 5s or more"),
        ('[daemon]\nsweep_interval = "0s"', "daemon.sweep_interval: zero cannot work"),
        ('[daemon]\nsweep_interval = "59s"', "59s is shorter than gpu.timeout, 60s"),
        (
            '[gpu]\nsource = "none"\n[daemon]\nsweep_interval = "9s"',
            "line 4: daemon.sweep_interval: 9s is shorter than docker.timeout, 10s",
        ),
        ('[daemon]\nsweep_jitter = "2m"', "daemon.sweep_jitter: longer than"),
        ('[docker]\ntimeout = "0s"', "docker.timeout: zero cannot work"),
        ('[docker]\nurl = "ssh://host"', '"ssh://host" is not the address of an engine: ssh is'),
        ('[docker]\nurl = "unix://run/docker.sock"', 'write "unix:///run/docker.sock"'),
        ('[docker]\nurl = "tcp://"', 'write "tcp://HOST:2375"'),
        ('[docker]\nurl = "tcp://h:99999"', "is not the address of an engine"),
        ('[docker]\nurl = "http://[::1"', "is not the address of an engine"),
        ('[docker]\nurl = ""', "is not the address of an engine"),
        ('[docker]\nurl = "https://engine:2376"', "TLS is not supported"),
        ('[exempt]\nnames = "dcgm"', "exempt.names: Expected `array`, got `str`"),
        ('[exempt]\nnames = ["ok", "^dcgm.*$"]', 'exempt.names: "^dcgm.*$" is not a valid pattern'),
        ('[exempt]\nnames = ["a|b"]', "exempt.names"),
        ('[exempt]\nnames = ["*"]', "exempt.names"),
        ('[exempt]\nnames = [""]', "exempt.names"),
        ('[exempt]\nimages = ["[x"]', 'exempt.images: "[x" is not a valid pattern for names'),
        ('[exempt]\nlabels = ["=x"]', 'exempt.labels: "=x" is not a valid pattern for a label'),
        ('[exempt]\nlabels = ["app=(a)"]', "exempt.labels"),
        ('[allocator]\nall_gpus = "never"', 'write "when-used" or "always"'),
        ('[metrics]\nlisten = "9464"', 'metrics.listen: invalid address "9464": write host:port'),
        ('[metrics]\nlisten = ":9464"', "invalid address"),
        ('[metrics]\nlisten = "::1:9464"', "invalid address"),
        ('[metrics]\nlisten = "h:70000"', "invalid address"),
        ('[metrics]\nlisten = "h:0"', "invalid address"),
        ('[metrics]\nlisten = "/run/ds01d.sock"', "invalid address"),
        ('[web]\nlisten = "9465"', 'web.listen: invalid address "9465": write host:port'),
        ('[web]\nlisten = "/../\\u0007"', "web.listen: invalid path"),
        (f'[web]\nlisten = "/{"x" * 107}"', "web.listen: longer than 107 bytes"),
        ('[web]\nlisten = "0.0.0.0:80"', "or set web.remote = true as well"),
        ('[web]\nlisten = "gpu.example.org:80"', "can be reached from other hosts"),
        ('[web]\nlisten = "[2001:db8::1]:80"', "can be reached from other hosts"),
        ('[web]\nhosts = ["https://gpu.example.org"]', "web.hosts"),
        ('[web]\nhosts = ["gpu.example.org:443"]', "write it without scheme and port"),
        ('[web]\nlisten = "/run/ds01d/booking.sock"', "web.listen: the same path as"),
        ('[fleet]\netcd = ["etcd1:2379"]', '"etcd1:2379" is not an address of a member'),
        ('[fleet]\netcd = ["ftp://etcd1"]', "is not an address of a member"),
        ('[fleet]\netcd = ["https://me:secret@etcd1"]', "has more than a host and a port"),
        ('[fleet]\netcd = ["https://etcd1/v3"]', "has more than a host and a port"),
        ('[fleet]\netcd = ["https://etcd1:0"]', "invalid host or port"),
        ('[fleet]\netcd = ["https://"]', "invalid host or port"),
        ('[fleet]\netcd = ["https://a", "https://a:2379/"]', "a member is listed twice"),
        (f"[fleet]\netcd = {[f'https://e{n}' for n in range(17)]}", "more than 16 members"),
        ('[fleet]\nwhen_away = "maybe"', 'write "local" or "refuse"'),
        ('[fleet]\nname = "a b"', 'fleet.name: "a b" is not a valid name of a host'),
        ('[fleet]\nuser = "a:b"', 'fleet.user: "a:b" is not a user of etcd'),
        ('[fleet]\ncertificates = "x"', "fleet.certificates: write the path of a folder"),
        (
            '[fleet]\netcd = ["http://a"]\ncertificates = "/x"',
            "fleet.certificates: only for https:// members",
        ),
        ('[metrics]\ntextfile = "/run/x.txt"', "reads only what ends in .prom"),
        ('[metrics]\ntextfile = "m.prom"', 'metrics.textfile: invalid path "m.prom"'),
        ('[books]\nstate = "/a"\nlimits = "/a"', "books.limits: the same path as books.state"),
        ('[books]\nstate = "/b/../a"\nlimits = "//a"', "the same path as books.state"),
        (
            '[daemon]\nstate_dir = "/var/lib/ds01/container-metadata/x"',
            "daemon.state_dir: lies in books.metadata",
        ),
        (
            '[daemon]\nstate_dir = "/var/lib/ds01/container-metadata/"',
            "daemon.state_dir: the same path as books.metadata",
        ),
        ("[policy]\nidle_utilization = 100", "policy.idle_utilization: write a whole number"),
        ("[policy]\nidle_utilization = -1", "policy.idle_utilization: write a whole number"),
        (
            '[policy]\nidle_after = "4h"\n[daemon]\nsweep_interval = "6m"',
            "policy.idle_after: needs a daemon.sweep_interval of at most 5m",
        ),
        ("x =", "x.toml: is not TOML: "),
        ("[a]\nb = 1\nb = 2\n", "is not TOML: Cannot overwrite a value (at line 3"),
        (f"x = {'9' * 5000}", "x.toml: "),
        (f"x = {'[' * 9000}", "is not TOML: "),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_file_line_key_and_mend(text: str, told: str) -> None:
    assert told in refusal(text)


def test_every_problem_is_told_at_once_but_not_endlessly() -> None:
    text = '[docker]\ntimeout = 10\n[policy]\nsetle = "5s"\n[gpu]\nsource = "x"'
    assert [line.split(":")[0] for line in refusal(text).splitlines()] == [
        "x.toml, line 2",
        "x.toml, line 4",
        "x.toml, line 6",
    ]
    many = refusal("".join(f"[t{n}]\n" for n in range(9000))).splitlines()
    assert len(many) == 21
    assert many[-1] == "x.toml: and 8980 more"


@pytest.mark.parametrize(
    "text",
    [
        '[docker]\nurl = "tcp://10.0.0.1:2375"',
        '[docker]\nurl = "http://engine:2375/"',
        '[docker]\nurl = "tcp://[::1]:2375"',
        '[gpu]\nsource = "none"\n[daemon]\nsweep_interval = "10s"',
        '[metrics]\nlisten = "0.0.0.0:9464"',
        '[web]\nlisten = "127.0.0.1:9465"\nhosts = ["gpu.example.org", "[::1]"]',
        '[web]\nlisten = "localhost:80"\nhide_users = true',
        '[web]\nlisten = "[::1]:80"',
        '[web]\nlisten = "192.0.2.7:80"\nremote = true',
        '[web]\nlisten = "/run/ds01d-web/page.sock"',
        '[fleet]\netcd = ["https://e1.example.org", "https://[2001:db8::1]:2379/"]\nuser = "ds01d"',
        '[fleet]\netcd = ["https://e1"]\ncertificates = "credentials"\nname = "gpu01"',
        '[policy]\npace_fraction = 1\npace_count = 0\nsettle = "0s"',
        '[exempt]\nlabels = ["app", "app=dcgm*"]\nimages = ["nvcr.io/*/dcgm-exporter:3.?"]',
        '[exempt]\nlabels = []\nnames = ["dcgm[0-9]-*"]',
    ],
)
def test_what_can_work_is_taken(text: str) -> None:
    parse_config(text, origin="x")


def test_an_address_to_listen_on_is_host_and_port() -> None:
    assert parse_config("", origin="x").metrics.address is None
    assert parse_config('[metrics]\nlisten = "[::1]:9464"', origin="x").metrics.address == (
        "::1",
        9464,
    )
    assert parse_config('[metrics]\nlisten = "h.x:1"', origin="x").metrics.address == ("h.x", 1)


def test_the_argument_goes_before_the_variable(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('[daemon]\nmode = "observe"')
    second.write_bytes(b"\xef\xbb\xbf[docker]\r\n")
    assert load_config(first, {ENVIRONMENT: str(second)}).daemon.mode == "observe"
    assert load_config(None, {ENVIRONMENT: str(first)}).daemon.mode == "observe"
    assert load_config(second, {ENVIRONMENT: str(first)}) == Config()


def test_only_the_default_file_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds01d.config_file.DEFAULT_PATH", tmp_path / "ds01d.toml")
    assert load_config(None, {}) == load_config(None, {ENVIRONMENT: ""}) == Config()
    with pytest.raises(ConfigError, match=r"a.toml: no such file: create it"):
        load_config(tmp_path / "a.toml", {})
    with pytest.raises(ConfigError, match=r"a.toml \(named by DS01D_CONFIG\): no such file"):
        load_config(None, {ENVIRONMENT: str(tmp_path / "a.toml")})


def test_what_is_no_readable_text_file_is_refused(tmp_path: Path) -> None:
    folder, fifo, big, latin = (tmp_path / name for name in ("folder", "fifo", "big", "latin"))
    loop = tmp_path / "loop"
    folder.mkdir()
    os.mkfifo(fifo)
    big.write_bytes(b"#" * (config_text.MAX_FILE_BYTES + 1))
    latin.write_bytes(b"# fine\n# caf\xe9\n")
    loop.symlink_to(loop)
    for file, why in (
        (folder, "is not a regular file: name a TOML file"),
        (fifo, "is not a regular file"),
        (big, "more than 262144 bytes"),
        (latin, "line 2 is not UTF-8: save it as UTF-8"),
        (loop, "cannot be read"),
        (tmp_path / "latin" / "x", "cannot be read"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=re.escape(why)):
            load_config(file, {})


def test_the_shipped_configuration_is_not_risky() -> None:
    assert describe_risks(Config()) == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[policy]\ncreation_grace = "59s"', "policy.creation_grace"),
        ('[policy]\nabsence_grace = "29s"', "policy.absence_grace"),
        ('[policy]\nsettle = "999ms"', "policy.settle"),
        ('[policy]\nfreeze = "9s"', "policy.freeze"),
        ("[policy]\npace_count = 21", "policy.pace_count"),
        ("[policy]\npace_fraction = 0.6", "policy.pace_count or pace_fraction"),
        ('[policy]\nidle_after = "9m"', "policy.idle_after"),
        ('[docker]\nurl = "tcp://h:1"', "docker.url"),
        ('[books]\nwhole_gpus = "always"', "books.whole_gpus"),
        ('[metrics]\ntextfile = "/run/no-such-folder/x.prom"', "metrics.textfile"),
        ('[web]\nlisten = "0.0.0.0:80"\nremote = true', "web.listen"),
        ('[fleet]\netcd = ["http://127.0.0.1:1", "http://etcd1:1"]', "fleet.etcd"),
    ],
)
def test_what_is_risky_is_allowed_and_told(text: str, key: str) -> None:
    (told,) = describe_risks(parse_config(text, origin="x"))
    assert told.startswith(key)


_lines = st.sampled_from([
    *(f"[{table.encode_name}]" for table in msgspec.structs.fields(Config)),
    *(key.partition(".")[2] + " = " for key in keys()),
])  # fmt: skip
_values = st.sampled_from(['"5s"', "5", '"/a/b"', "nan", "-1", "1e999", "[[]]", "{a={}}", "true"])


@given(st.one_of(st.text(), st.lists(st.tuples(_lines, _values | st.text())).map(
    lambda pairs: "\n".join(line if line[0] == "[" else line + value for line, value in pairs)
)))  # fmt: skip
@example("[docker.timeout]\n[[policy]]")
@example('"do\\ncker" = 1\n[policy]\n"se\\u0000ttle" = 1')
def test_any_text_is_a_configuration_or_a_refusal(text: str) -> None:
    try:
        config = parse_config(text, origin="x.toml")
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert line.startswith("x.toml")
    else:
        assert all(isinstance(told, str) for told in describe_risks(config))
