"""Phases exclude each other and sum to the wall time, whatever the boundaries."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from handmade import BUDGET, output, stderr_0_3_16, stdout_0_3_16
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse.phases import check_sum, of_phase, segment, whole
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks import PHASES, Boundary
from pocketvlm.frameworks.llamacpp.grammar import parse


def test_a_run_is_cut_at_its_boundaries() -> None:
    report = parse(output(stdout_0_3_16(), stderr_0_3_16()), max_tokens=BUDGET, exact=True)
    intervals = segment(report.boundaries, 5_000_000)
    assert [(i.phase, i.interval, i.start_us, i.end_us) for i in intervals] == [
        ("load", 0, 0, 1_000_000),
        ("text_prefill", 0, 1_000_000, 1_100_000),
        ("image_encode", 0, 1_100_000, 1_600_000),
        ("image_prefill", 0, 1_600_000, 3_500_000),
        ("text_prefill", 1, 3_500_000, 3_600_000),
        ("decode", 0, 3_600_000, 3_900_000),
        ("other", 0, 3_900_000, 5_000_000),
    ]
    # The image file is decoded and preprocessed unannounced between the end of load and the first text.
    assert [(i.phase, i.interval) for i in intervals if not i.start_observed] == [("text_prefill", 0)]
    assert of_phase(intervals, "text_prefill") == [(1_000_000, 1_100_000), (3_500_000, 3_600_000)]
    assert of_phase(intervals, "run") == [(0, 5_000_000)]


boundaries = st.lists(
    st.tuples(st.integers(0, 10**9), st.sampled_from(PHASES), st.booleans(), st.booleans()), max_size=30
)


@given(boundaries, st.integers(0, 10**6))
def test_intervals_partition_the_run(drawn: list[tuple[int, str, bool, bool]], rest: int) -> None:
    drawn.sort(key=lambda each: each[0])
    points = [Boundary("start", 0, "load"), *(Boundary("b", *each) for each in drawn)]
    wall = points[-1].t_us + rest
    intervals = segment(points, wall)
    assert sum(i.duration_us for i in intervals) == wall
    assert all(a.end_us == b.start_us for a, b in itertools.pairwise(intervals))
    assert sum(end - start for phase in PHASES for start, end in of_phase(intervals, phase)) == wall
    numbers = [(i.phase, i.interval) for i in intervals]
    assert len(set(numbers)) == len(numbers)


@given(st.integers(1_001, 10**9), st.booleans())
def test_a_sum_off_by_more_than_a_millisecond_raises(off: int, longer: bool) -> None:
    intervals = whole(2 * 10**9)
    with pytest.raises(IntegrityError, match="phases sum to"):
        check_sum(intervals, 2 * 10**9 + (off if longer else -off))
    check_sum(intervals, 2 * 10**9 + 1000)


def test_disorder_raises() -> None:
    start = Boundary("start", 0, "load")
    with pytest.raises(IntegrityError, match="is before"):
        segment([start, Boundary("a", 5, "decode"), Boundary("b", 4, "other")], 10)
    with pytest.raises(IntegrityError, match="is before"):
        segment([start, Boundary("a", 11, "decode")], 10)
    with pytest.raises(IntegrityError, match="not the start"):
        segment([Boundary("a", 5, "decode")], 10)
    with pytest.raises(IntegrityError, match="unknown phase"):
        segment([start, Boundary("a", 5, "lunch")], 10)
    overlapping = [*whole(10_000), dataclasses.replace(whole(10_000)[0], start_us=5_000)]
    with pytest.raises(IntegrityError, match="overlap"):
        check_sum(overlapping, 15_000)
