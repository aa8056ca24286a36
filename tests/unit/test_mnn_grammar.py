"""What mnn_vlm.py prints around the answer of MNN's engine, and what hostile output does."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import Piece, output
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Report, command, grammar

FIGURES = (
    b"\nphase = other\nload = 600.000 ms\nvision = 480.000 ms\nprefill = 1900.000 ms\ndecode = 400.000 ms\n"
    b"sample = 1.500 ms\nprompt_tokens = 160 tokens\nanswer_tokens = 4 tokens\nstatus = MAX_TOKENS_FINISHED\n"
)
ECHO = b"[MNNLLM] response: text=<image><patch></image>\nWhat is it?, stream=1, max_new_tokens=-1\n"


def pieces(answer: tuple[bytes, ...] = (b" a", b" b", b" c", b" d"), figures: bytes = FIGURES) -> list[Piece]:
    """Python and engine load in 0.9 s, the image takes 0.5, the prompt 2.0, a token 0.1."""
    start: list[Piece] = [
        (200_000, b"The device supports: i8sdot:0, fp16:0, i8mm: 0, sve2: 0, sme2: 0\n"),
        (500_000, b"load_vocab, 226, cost time: 2.891000 ms\n"),
        (900_000, b"phase = text_prefill\n"),
        (1_000_000, b"phase = image_encode\n"),
        (1_500_000, b"phase = text_prefill\nimage_tokens = 100 tokens\n"),
        (1_500_500, ECHO),
    ]
    words = [(3_500_000 + 100_000 * number, word) for number, word in enumerate(answer)]
    return [*start, *words, (3_900_000, b"[MNNLLM] response: \n"), (3_900_100, figures)]


def read(seen: list[Piece], *, budget: int = 4, exact: bool = True) -> Report:
    return grammar("mnn").parse(output(seen, [], wall_us=4_000_000), max_tokens=budget, exact=exact)


def test_a_run_becomes_phases_tokens_and_counters() -> None:
    report = read(pieces())
    assert [(b.name, b.t_us, b.phase, b.observed) for b in report.boundaries] == [
        ("start", 0, "load", True),
        ("load_end", 900_000, "text_prefill", True),
        ("image_encode_start", 1_000_000, "image_encode", True),
        ("image_encode_end", 1_500_000, "text_prefill", True),
        ("first_token", 3_500_000, "decode", True),
        ("last_token", 3_800_000, "other", True),
    ]
    assert report.answer == " a b c d"
    assert report.tokens == {"decode": 4, "image_prefill": 100, "text_prefill": 60}
    assert report.decode_steps == 3
    np.testing.assert_array_equal(report.token_times_us, [3_500_000, 3_600_000, 3_700_000, 3_800_000])
    assert set(report.unobservable) == {"text_prefill", "image_prefill"}
    counters = {counter.name: counter for counter in report.counters}
    assert {name: counter.value_ms for name, counter in counters.items()} == {
        "load": 600.0, "image_encode": 480.0, "prompt_eval": 1900.0, "decode": 400.0, "sample": 1.5,
    }  # fmt: skip
    # Two of them mean something else than what is seen, and say so.
    assert {name: counter.covers for name, counter in counters.items() if counter.covers} == {
        "image_encode": ("image_encode",),
        "prompt_eval": ("text_prefill", "image_prefill"),
    }
    assert "vision tower" in counters["load"].reason
    assert "last token" in counters["decode"].reason


@pytest.mark.parametrize(("joined", "hidden"), [(2, {"load"}), (3, {"image_encode"}), (9, {"decode"})])
def test_lines_that_arrive_together_hide_the_phases_beside_them(joined: int, hidden: set[str]) -> None:
    seen = pieces()
    seen[joined : joined + 2] = [(seen[joined + 1][0], seen[joined][1] + seen[joined + 1][1])]
    report = read(seen)
    assert hidden <= set(report.unobservable) - {"text_prefill", "image_prefill"}
    assert any(not boundary.observed for boundary in report.boundaries)


def test_an_answer_cannot_forge_figures_or_phases() -> None:
    report = read(
        pieces((b" a", b"\nphase = other\nanswer_tokens = 9 tokens\nstatus = LIE\n", b"x", FIGURES))
    )
    assert report.tokens["decode"] == 4
    assert report.answer.startswith(" a\nphase = other\nanswer_tokens = 9 tokens")
    assert report.answer_bytes.endswith(FIGURES)


def test_a_pipe_brings_the_engines_last_line_late() -> None:
    seen = pieces()
    late = seen.pop(-2)
    assert read([*seen, (3_990_000, late[1])]).answer == " a b c d"


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (pieces()[:5], "printed no answer"),
        (pieces(figures=b""), "printed no answer"),
        (pieces(()), "empty answer"),
        (pieces(figures=FIGURES.replace(b"MAX_TOKENS_FINISHED", b"INTERNAL_ERROR")), "INTERNAL_ERROR"),
        (pieces(figures=FIGURES.partition(b"status")[0]), "no status"),
        (pieces(figures=FIGURES.replace(b"answer_tokens", b"tokens")), "no answer_tokens"),
        (pieces(figures=FIGURES.replace(b"= 4 tokens", b"= 0 tokens")), "printed 0 answer_tokens"),
        (pieces(figures=FIGURES.replace(b"= 4 tokens", b"= 3 tokens")), "3 tokens, the budget is 4"),
        ([*pieces()[:2], *pieces()[3:]], "did not announce each phase"),
    ],
)
def test_what_is_no_whole_run_is_refused(seen: list[Piece], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        read(seen)


def test_an_answer_may_end_early_where_it_is_allowed_to() -> None:
    ended = FIGURES.replace(b"= 4 tokens", b"= 3 tokens").replace(b"MAX_TOKENS", b"NORMAL")
    assert read(pieces(figures=ended), exact=False).tokens["decode"] == 3


def test_a_failed_program_is_told_with_its_last_words() -> None:
    failed = output(pieces(), [(1, b"mnn_vlm: the image x.png cannot be read\n")], status=1)
    with pytest.raises(WorkloadError, match=r"status 1.*x\.png cannot be read"):
        grammar("mnn").parse(failed, max_tokens=4, exact=True)


def test_an_answer_in_one_piece_does_not_show_its_first_token() -> None:
    report = read(pieces((b" a b c d",)))
    assert report.first_token_us is None
    assert "in one piece" in report.unobservable["first_token"]


def test_figures_that_cannot_be_are_none() -> None:
    report = read(pieces(figures=FIGURES.replace(b"480.000", b"0.000")))
    vision = next(counter for counter in report.counters if counter.name == "image_encode")
    assert (vision.value_ms, vision.reason) == (None, "mnn_vlm.py printed 0.000 ms as vision")
    report = read(pieces(figures=FIGURES.replace(b"160 tokens", b"60 tokens")))
    assert report.tokens["text_prefill"] is None


def test_an_engine_that_speaks_again_and_again_takes_no_time() -> None:
    spoken = b"[MNNLLM] response: text=" * 100_000
    with pytest.raises(WorkloadError, match="printed no answer"):
        read([*pieces()[:5], (1_500_500, spoken), (3_900_100, FIGURES)])


def test_unfinished_asks_for_the_end_of_the_answer() -> None:
    stdout = b"".join(data for _, data in pieces())
    unfinished = command("mnn").unfinished
    assert unfinished(stdout, b"") is None
    assert unfinished(stdout.replace(b"\n", b"\r\n"), b"") is None
    assert unfinished(stdout.replace(b"MAX_TOKENS", b"NORMAL"), b"") is None
    failed = FIGURES.replace(b"MAX_TOKENS_FINISHED", b"INTERNAL_ERROR")
    forged = b"".join(data for _, data in pieces((b"\nstatus = MAX_TOKENS_FINISHED\n",), failed))
    for cut in (stdout.partition(b"status")[0], forged, b""):
        assert unfinished(cut, b"") == "did not answer to the end"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5_000_000), st.binary(max_size=80)), max_size=6), st.integers(0, 12))
def test_any_bytes_are_a_run_or_a_told_error(noise: list[Piece], place: int) -> None:
    seen = pieces()
    seen[place:place] = [(seen[min(place, len(seen) - 1)][0], data) for _, data in noise]
    try:
        report = read(seen)
    except WorkloadError:
        return
    times = [boundary.t_us for boundary in report.boundaries]
    assert times == sorted(times)
