"""The parsers on what fuzzing found, and on samples that are cut, joined and garbled anew.

The long search is `make fuzz`; here its corpus is tried on every Python, and a little more.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verification.fuzz import corpus
from tests.verification.fuzz.targets import TARGETS, Target

DEEP = 100_000
NASTY = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b'{"version":1,"memory":{"unknown":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
    b'{"id":"1","unknown":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b'"\\ud800"',
    b'{"gpus":{"\\ud800":{}}}',
    b'{"gpus":{"1":{"reserved_for":"\\ud800"}}}',
    b'{"gpus":{"1":{"users":{"a":1e999}}}}',
    b"9" * 10_000,
    b"NaN",
    b"-",
    b"a: &a [*a]",
    b"a: &a [1]\nb: [" + b"*a," * 20_000 + b"]",
    b"a = " + b"[" * 10_000,
    b"a" * (1 << 20),
)


@pytest.fixture(params=TARGETS.values(), ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    found = request.param
    assert isinstance(found, Target)
    return found


def test_what_a_parser_is_made_for_is_understood(target: Target) -> None:
    seeds = list(target.seeds())
    assert seeds, "no sample to start from"
    for seed in seeds:
        target.parse(seed)


def test_what_fuzzing_found_gets_an_answer_or_an_error_of_ours(target: Target) -> None:
    kept = corpus.load(target)
    assert kept, f"no corpus: make fuzz ARGS={target.name}"
    for data in (*NASTY, *kept):
        target.try_(data)


@pytest.mark.parametrize("name", TARGETS)
def test_garbled_samples_get_an_answer_or_an_error_of_ours(name: str) -> None:
    target = TARGETS[name]
    seeds = [*target.seeds(), *corpus.load(target)]

    @given(garbled(seeds))
    def every(data: bytes) -> None:
        target.try_(data)

    every()


@st.composite
def garbled(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Two samples cut and joined, with a few bytes of anything between."""
    first, second = draw(st.sampled_from(seeds)), draw(st.sampled_from(seeds))
    begin = first[: draw(st.integers(0, len(first)))]
    end = second[draw(st.integers(0, len(second))) :]
    return begin + draw(st.binary(max_size=8)) + end
