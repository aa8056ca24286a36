"""What MLC's programs print, in three forms and a dialect, and what hostile output does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from handmade import output
from hypothesis import given, settings
from hypothesis import strategies as st
from printed import FIXTURES, check, pieces_of, read, samples, survives

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import command, grammar
from pocketvlm.frameworks.mlc.command import unfinished
from pocketvlm.frameworks.mlc.grammar import parse
from pocketvlm.frameworks.mlcimp.grammar import parse as parse_imp


@pytest.mark.parametrize("path", samples("mlc"))
def test_every_sample_means_what_is_written_beside_it(path: Path) -> None:
    check(path, parse, unfinished)


@pytest.mark.parametrize("path", samples("mlc/imp"))
def test_every_sample_of_mlc_imp_means_what_is_written_beside_it(path: Path) -> None:
    check(path, parse_imp, unfinished)


def test_the_prefill_rate_of_mlc_imp_is_used_nowhere_and_the_reason_is_told() -> None:
    _, seen = read(FIXTURES / "mlc/imp/verbose.yaml")
    report = parse_imp(seen, max_tokens=4, exact=True)
    assert all("not comparable" in report.unobservable[p] for p in ("text_prefill", "image_prefill"))
    assert report.tokens["text_prefill"] is None and report.tokens["image_prefill"] is None
    other = parse(seen, max_tokens=4, exact=True)
    assert "not comparable" not in other.unobservable["text_prefill"]


def test_the_runner_refuses_what_has_no_end_and_what_complained() -> None:
    for name, words in (
        ("cut", "no rate of decode"),
        ("no-statistics", "without its statistics"),
        ("twice", "two values of decode"),
        ("complaint", "Check failed"),
        ("binary", "without its statistics"),
    ):
        _, seen = read(FIXTURES / f"mlc/{name}.yaml")
        why = unfinished(seen.stdout.data, seen.stderr.data)
        assert why and words in why


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"deadline_hit": True}, "MLC-LLM did not end before its deadline"),
        ({"exited": False, "status": None, "signal": 4}, "MLC-LLM was killed by signal 4"),
        ({"status": 1}, "MLC-LLM exited with status 1"),
    ],
)
def test_a_run_that_did_not_end_well_is_refused(end: dict[str, object], words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        parse(output([(1, b"x")], [(1, b"bad\n")], **end), max_tokens=4, exact=True)


def test_adapters_are_found_by_their_names() -> None:
    assert grammar("mlc").parse is parse and grammar("mlcimp").parse is parse_imp
    assert command("mlcimp").unfinished is unfinished


@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([
                b"\n", b"Loading finished\n", b"System prompts finished\n", b"USER: ", b"ASSISTANT: ", b" a",
                b"prefill: 1.0 tok/s, decode: nan tok/s\n", b"prefill: 1 tok/s, decode: 2 tok/s prefill:1 s",
                b"---- prefill ----\n", b"---- decode ----\n", b"throughput: 3.000 tok/s\n",
                b"total tokens: 3 tok\n", b"total time: 0 s\n", b'{"usage": {"extra": {"x": 1}}}\n',
                b'{"completion_tokens": 2, "extra": {"prefill_tokens_per_s": 1, "decode_tokens_per_s": 9}}\n',
                b'{"extra": {"prefill_tokens_per_s": 1e308, "decode_tokens_per_s": 1e-308}}\n',
                b"[" * 2000 + b"\n", b'{"a":' * 1500 + b"}\n",
            ]),
        ),
        max_size=30,
    ).map(b"".join),
    cuts=st.lists(st.integers(1, 400), max_size=8),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_output_is_understood_or_refused(data: bytes, cuts: list[int]) -> None:
    survives(parse, pieces_of(data, cuts), [])


def test_steps_that_were_not_made_have_no_time() -> None:
    _, seen = read(FIXTURES / "mlc/verbose.yaml")
    data = re.sub(rb"(decode -+\n.*?total tokens:) \d+", rb"\1 0", seen.stdout.data, flags=re.DOTALL)
    data = data.replace(b"total time: 0.300 s", b"total time: 0 s")
    report = parse(output(pieces_of(data, [len(data) // 2]), []), max_tokens=4, exact=False)
    assert next(c.value_ms for c in report.counters if c.name == "decode") is None


def test_a_long_run_of_line_ends_takes_no_time() -> None:
    _, seen = read(FIXTURES / "mlc/usage.yaml")
    data = seen.stdout.data.replace(b" cup", b"\n" * 2_000_000 + b" cup")
    report = parse(output(pieces_of(data, [len(data) // 2]), []), max_tokens=4, exact=False)
    assert len(report.answer_bytes) > 2_000_000
