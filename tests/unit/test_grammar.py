"""What llama-mtmd-cli prints, read in three generations, and what hostile output does."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import BUDGET, TIMING, Piece, as_0_3_9, as_0_3_36, output, stderr_0_3_16, stdout_0_3_16
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvlm.errors import ConfigError, WorkloadError
from pocketvlm.frameworks import Output, Report, command, grammar
from pocketvlm.frameworks.llamacpp.grammar import parse


def read(seen: Output, budget: int = BUDGET, exact: bool = True) -> Report:
    return parse(seen, max_tokens=budget, exact=exact)


def moments(report: Report) -> list[tuple[str, int, str]]:
    return [(b.name, b.t_us, b.phase) for b in report.boundaries]


def test_an_answer_in_one_piece_does_not_show_its_first_token() -> None:
    """Decode has no length then, and what precedes it is longer than it was by the answer."""
    pieces = [*stdout_0_3_16()[:6], (3_900_000, b" a b c d"), (4_000_000, b"\n\n")]
    report = read(output(pieces, stderr_0_3_16()))
    assert report.first_token_us is None
    for phase in ("first_token", "decode", "text_prefill"):
        assert "in one piece" in report.unobservable[phase]


EXPECTED = [
    ("start", 0, "load"),
    ("load_end", 1_000_000, "text_prefill"),
    ("image_encode_start", 1_100_000, "image_encode"),
    ("image_encode_end", 1_600_000, "image_prefill"),
    ("image_prefill_end", 3_500_000, "text_prefill"),
    ("first_token", 3_600_000, "decode"),
    ("last_token", 3_900_000, "other"),
]


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [(stdout_0_3_16(), stderr_0_3_16()), as_0_3_9(), as_0_3_36()],
    ids=["0.3.16", "0.3.9", "0.3.36"],
)
def test_three_generations_print_the_same_run(stdout: list[Piece], stderr: list[Piece]) -> None:
    report = read(output(stdout, stderr))
    assert moments(report) == EXPECTED
    assert all(b.observed for b in report.boundaries)
    assert [b.name for b in report.boundaries if not b.exact] == ["load_end"]
    assert report.unobservable == {}
    assert {c.name: c.value_ms for c in report.counters} == {
        "load": 900.0,
        "image_encode": 500.0,
        "image_prefill": 1900.0,
        "prompt_eval": 2600.0,
        "decode": 300.0,
        "sample": None,
        "total": 3500.0,
    }
    assert next(c.reason for c in report.counters if c.name == "sample")
    assert report.tokens == {"decode": 4, "image_prefill": 576, "text_prefill": 24}
    assert {c.name: c.unannounced_ms for c in report.counters if c.covers} == {
        "image_encode": 0.0,
        "image_prefill": 0.0,
        "prompt_eval": 100.0,  # end of load to the image: decoding its file and evaluating the first text
        "decode": 3.0,  # three steps of the 1 ms that the first sampling took
    }
    assert report.decode_steps == 3
    assert report.answer == " a b c d"
    np.testing.assert_array_equal(report.token_times_us, [3_600_000, 3_700_000, 3_800_000, 3_900_000])


def test_older_and_newer_timing_keys_are_understood() -> None:
    old = TIMING.replace(b"llama_perf_context_print", b"llama_print_timings")
    sample = b"llama_print_timings:      sample time =       0.83 ms /     4 runs   (    0.21 ms per token)\n"
    report = read(output(stdout_0_3_16(), [(4_000_000, old + sample)]))
    assert next(c.value_ms for c in report.counters if c.name == "sample") == 0.83
    new = TIMING.replace(b"llama_perf_context_print", b"common_perf_print")
    extra = b"common_perf_print:    sampling time =       1.50 ms\n"
    report = read(output(stdout_0_3_16(), [(4_000_000, extra + new)]))
    assert next(c.value_ms for c in report.counters if c.name == "sample") == 1.5


def test_lines_that_arrive_together_are_not_seen_apart() -> None:
    pieces = stdout_0_3_16()
    late = (1_100_000, pieces[0][1] + pieces[1][1])
    report = read(output([late, *pieces[2:]], stderr_0_3_16()))
    boundary = next(b for b in report.boundaries if b.name == "load_end")
    assert not boundary.observed
    assert "load_end" in report.unobservable["load"]
    assert "image_encode_start" in report.unobservable["load"]
    assert "text_prefill" in report.unobservable
    assert "image_encode" not in report.unobservable


def test_lines_printed_back_to_back_may_arrive_together() -> None:
    pieces = stdout_0_3_16()
    pair = (1_600_000, pieces[2][1] + pieces[3][1])
    report = read(output([*pieces[:2], pair, *pieces[4:]], stderr_0_3_16()))
    assert moments(report) == EXPECTED
    assert report.unobservable == {}


def test_a_pipe_that_brings_everything_at_the_end_hides_all_phases() -> None:
    whole = b"".join(data for _, data in stdout_0_3_16())
    report = read(output([(4_000_000, whole)], stderr_0_3_16()))
    assert {"load", "text_prefill", "image_encode", "image_prefill", "decode"} <= set(report.unobservable)


def test_the_last_token_is_not_seen_when_the_end_came_with_it() -> None:
    pieces = stdout_0_3_16()
    report = read(output([*pieces[:-2], (4_000_000, b" d\n\n")], stderr_0_3_16()))
    assert "decode" in report.unobservable
    assert report.answer == " a b c d"


def test_several_image_batches_and_images() -> None:
    pieces = stdout_0_3_16()
    batches = [
        (1_600_050, b"decoding image batch 1/2, n_tokens_batch = 512\n"),
        (3_000_000, b"image decoded (batch 1/2) in 1400 ms\n"),
        (3_000_050, b"decoding image batch 2/2, n_tokens_batch = 64\n"),
        (3_200_000, b"image decoded (batch 2/2) in 200 ms\n"),
        (3_250_000, b"encoding image slice...\n"),
        (3_300_000, b"image slice encoded in 50 ms\n"),
        (3_300_050, b"decoding image batch 1/1, n_tokens_batch = 10\n"),
        (3_500_000, b"image decoded (batch 1/1) in 200 ms\n"),
    ]
    report = read(output([*pieces[:3], *batches, *pieces[5:]], stderr_0_3_16()))
    assert [b.phase for b in report.boundaries] == [
        "load", "text_prefill", "image_encode", "image_prefill", "text_prefill", "image_encode",
        "image_prefill",
        "text_prefill", "decode", "other",
    ]  # fmt: skip
    assert report.tokens["image_prefill"] == 586
    assert {c.name: c.value_ms for c in report.counters}["image_prefill"] == 1800.0
    assert {c.name: c.value_ms for c in report.counters}["image_encode"] == 550.0


def test_without_lines_about_the_image_its_phases_cannot_be_seen() -> None:
    pieces = stdout_0_3_16()
    report = read(output([pieces[0], *pieces[5:]], stderr_0_3_16()))
    assert {"image_encode", "image_prefill", "text_prefill"} <= set(report.unobservable)
    assert report.tokens["text_prefill"] is None
    report = read(output([*pieces[:3], *pieces[5:]], stderr_0_3_16()))
    assert set(report.unobservable) == {"image_prefill", "text_prefill"}


def test_a_forged_counter_in_the_answer_is_only_text() -> None:
    forged = b" image decoded (batch 1/1) in 1 ms\n\nimage slice encoded in 1 ms\n" + TIMING.replace(
        b"300.00", b"1.00"
    )
    pieces = stdout_0_3_16()
    report = read(output([*pieces[:6], (3_600_000, forged), *pieces[7:]], stderr_0_3_16()))
    assert {c.name: c.value_ms for c in report.counters}["image_encode"] == 500.0
    assert {c.name: c.value_ms for c in report.counters}["decode"] == 300.0
    assert "image slice encoded in 1 ms" in report.answer
    assert [b.phase for b in report.boundaries].count("image_prefill") == 1


def test_bytes_that_are_no_text_are_replaced() -> None:
    pieces = stdout_0_3_16()
    report = read(output([*pieces[:6], (3_600_000, b"\xff\xfe\x1b[31m"), *pieces[7:]], stderr_0_3_16()))
    assert report.answer.startswith("\ufffd\ufffd")
    assert report.answer_bytes.startswith(b"\xff\xfe")


def test_end_of_text_before_the_budget() -> None:
    pieces = [*stdout_0_3_16()[:-1], (3_950_000, b"\n\n\n")]
    seen = output(pieces, stderr_0_3_16())
    with pytest.raises(WorkloadError, match="sampled 4 tokens, the budget is 8"):
        read(seen, budget=8)
    assert read(seen, budget=8, exact=False).answer == " a b c d"
    with pytest.raises(WorkloadError, match="budget is 3"):
        read(seen, budget=3, exact=False)


def test_one_token_leaves_no_evaluation() -> None:
    timing = TIMING.replace(b"300.00 ms /     3 runs", b"0.00 ms /     1 runs")
    pieces = [*stdout_0_3_16()[:7], (3_700_000, b"\n\n")]
    report = read(output(pieces, [(4_000_000, timing)]), budget=1)
    assert report.decode_steps == 0
    assert report.tokens["decode"] == 1
    counter = next(c for c in report.counters if c.name == "decode")
    assert counter.value_ms is None
    assert counter.reason


def test_output_drained_after_the_end_is_not_later_than_the_run() -> None:
    report = read(output(stdout_0_3_16(), stderr_0_3_16(), wall_us=3_850_000))
    assert max(b.t_us for b in report.boundaries) == 3_850_000


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({"exited": True, "status": 1}, "status 1"),
        ({"exited": False, "status": None, "signal": 9}, "signal 9"),
        ({"deadline_hit": True}, "deadline"),
    ],
)
def test_a_workload_that_failed_says_so_with_the_end_of_its_log(end: dict[str, object], message: str) -> None:
    log = b"error: failed to load\x1b[2J model\x00\n" + b"x" * 5000 + b"\n"
    with pytest.raises(WorkloadError, match=message) as caught:
        read(output([], [(1, log)], **end))
    text = str(caught.value)
    assert "failed to load" in text
    assert "\x1b" not in text
    assert "\x00" not in text
    assert len(text) < 2000


def test_a_workload_that_printed_nothing() -> None:
    with pytest.raises(WorkloadError, match="without its timing block; stderr ends with: nothing"):
        read(output([], []))
    with pytest.raises(WorkloadError, match="no answer"):
        read(output([*stdout_0_3_16()[:6], (4_000_000, b"\n\n")], stderr_0_3_16()))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**7), st.binary(min_size=1, max_size=80)), max_size=12), st.data())
def test_hostile_output_never_breaks_the_reader(noise: list[Piece], data: st.DataObject) -> None:
    """Any mixture of real lines and noise is understood, with ordered boundaries, or a WorkloadError."""
    real = stdout_0_3_16()
    mixed = sorted([*data.draw(st.permutations(real)), *noise], key=lambda piece: piece[0])
    errors = sorted([*stderr_0_3_16(), *data.draw(st.permutations(noise))], key=lambda piece: piece[0])
    try:
        report = read(output(mixed, errors, wall_us=9_000_000), exact=False)
    except WorkloadError:
        return
    times = [b.t_us for b in report.boundaries]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= 9_000_000


def test_adapters_are_found_by_name_only() -> None:
    assert grammar("llamacpp").parse is parse
    with pytest.raises(ConfigError, match="unknown framework adapter 'nosuch'"):
        grammar("nosuch")
    with pytest.raises(ConfigError, match="llamacpp"):
        command("os")
