"""What mllm's programs print, read in two generations, and what hostile output does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from handmade import output
from hypothesis import given, settings
from hypothesis import strategies as st
from printed import FIXTURES, check, pieces_of, read, samples, survives

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import grammar
from pocketvlm.frameworks.mllm.command import unfinished
from pocketvlm.frameworks.mllm.grammar import parse

LLAVA = FIXTURES / "mllm/llava.yaml"
RULE = b"=" * 43


@pytest.mark.parametrize("path", samples("mllm"))
def test_every_sample_means_what_is_written_beside_it(path: Path) -> None:
    check(path, parse, unfinished)


def test_the_runner_refuses_what_has_no_end_and_what_complained() -> None:
    for name, words in (
        ("cut", "without its timing block"),
        ("twice", "two values"),
        ("binary", "without its timing block"),
        ("one-evaluation", "no prefilling speed"),
        ("complaint-magic", "magic number error"),
        ("complaint-tensor", "down_proj.weight not found"),
    ):
        _, seen = read(FIXTURES / f"mllm/{name}.yaml")
        why = unfinished(seen.stdout.data, seen.stderr.data)
        assert why and words in why


def test_the_printed_prefilling_speed_of_llava_is_used_nowhere() -> None:
    """12.03 tokens/s of 24 text tokens; 599 tokens were evaluated in that time."""
    _, seen = read(LLAVA)
    report = parse(seen, max_tokens=4, exact=True)
    assert report.tokens["text_prefill"] == 23 and report.tokens["image_prefill"] == 576
    assert all(c.value_ms is None or abs(1e3 / c.value_ms - 12.0264) > 1 for c in report.counters)
    assert "in one piece" in report.unobservable["text_prefill"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"deadline_hit": True}, "did not end before its deadline"),
        ({"exited": False, "status": None, "signal": 9}, "was killed by signal 9"),
        ({"status": 1}, "exited with status 1"),
    ],
)
def test_a_run_that_did_not_end_well_is_refused(end: dict[str, object], words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        parse(output([(1, b"x")], [(1, b"bad \x1b[2J\n")], **end), max_tokens=4, exact=True)


def test_an_adapter_is_found_by_its_name() -> None:
    assert grammar("mllm").parse is parse


def test_output_read_after_the_end_is_not_later_than_it() -> None:
    sample, _ = read(LLAVA)
    pieces = [(t, text.encode()) for t, text in sample["stdout"]]
    report = parse(output(pieces, [], wall_us=3_500_000), max_tokens=4, exact=True)
    assert max(b.t_us for b in report.boundaries) == 3_500_000


@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    RULE,
                    b"\n",
                    b"  Load time: 1 s\n",
                    b"ASSISTANT:",
                    b"[Q] x\n",
                    b"[A] ",
                    b"Processing...\n",
                    b"Response: ",
                    b"  Prefilling speed: 5 tokens/s , TTFT: 2 s\n",
                    b"  Decoding speed: nan tokens/s\n",
                    b"== Performance Summary ==\n",
                    b"Decode time : 1.0 s\n",
                    b"Decode steps : 3\n",
                    b"== Custom Events ==\n",
                    b"\x1b[38;2;1;2;3m",
                    b"-" * 30,
                    b" a",
                ]
            ),
        ),
        max_size=30,
    ).map(b"".join),
    cuts=st.lists(st.integers(1, 400), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_any_output_is_understood_or_refused(data: bytes, cuts: list[int]) -> None:
    survives(parse, pieces_of(data, cuts), [])


@pytest.mark.parametrize("flood", [b"\x1b[0m", b"\n" + b"-" * 30])
def test_an_answer_that_ends_like_what_follows_it_takes_no_time(flood: bytes) -> None:
    _, seen = read(LLAVA)
    data = seen.stdout.data.replace(b" tea", b" tea" + flood * 1_000_000)
    begun = time.process_time()
    parse(output(pieces_of(data, [len(data) // 2]), []), max_tokens=4, exact=False)
    assert time.process_time() - begun < 5


def test_a_long_run_of_line_ends_takes_no_time() -> None:
    _, seen = read(LLAVA)
    data = seen.stdout.data.replace(b" cup", b"\n" * 2_000_000 + b" cup")
    report = parse(output(pieces_of(data, [len(data) // 2]), []), max_tokens=4, exact=False)
    assert len(report.answer_bytes) > 2_000_000
