"""Integrals and counter differences over intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse.energy import counter_energy, difference, inside, integral, mean, unwrap

T = np.arange(0, 10_000_001, 100_000)


def test_a_constant_and_a_ramp() -> None:
    assert integral(T, np.full(T.size, 2.0), [(1_000_000, 3_500_000)]) == pytest.approx(5.0)
    ramp = T * 1e-6
    assert integral(T, ramp, [(1_234_567, 8_765_432)]) == pytest.approx((8.765432**2 - 1.234567**2) / 2)
    assert mean(T, ramp, [(2_000_000, 4_000_000), (6_000_000, 8_000_000)]) == pytest.approx(5.0)


def test_beyond_the_samples_the_nearest_is_held() -> None:
    t = np.array([1_000_000, 2_000_000])
    assert integral(t, np.array([3.0, 5.0]), [(0, 4_000_000)]) == pytest.approx(3.0 + 4.0 + 10.0)


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=40),
    st.lists(st.integers(0, 4_000_000), min_size=2, max_size=12, unique=True),
)
def test_energy_is_additive(power: list[float], cuts: list[int]) -> None:
    """Whatever the cuts, the energies of the pieces sum to the energy of the whole."""
    t = np.linspace(0, 4_000_000, len(power)).astype(np.int64)
    values = np.array(power)
    cuts.sort()
    pieces = list(itertools.pairwise(cuts))
    total = integral(t, values, [(cuts[0], cuts[-1])])
    assert sum(integral(t, values, [piece]) for piece in pieces) == pytest.approx(total, abs=1e-6)
    assert integral(t, values, pieces) == pytest.approx(total, abs=1e-6)


@given(st.lists(st.integers(0, 500), min_size=2, max_size=50), st.integers(0, 999))
def test_a_counter_that_wraps_is_made_whole(steps: list[int], first: int) -> None:
    true = first + np.concatenate(([0], np.cumsum(steps)))
    assert unwrap((true % 1000).astype(float), 1000.0) == pytest.approx(
        (true - true[0] + first).astype(float)
    )


def test_a_counter_that_goes_back_without_a_known_range() -> None:
    assert unwrap(np.array([5.0, 4.0]), None) is None
    assert unwrap(np.array([5.0, 4.0]), 4.5) is None
    assert unwrap(np.array([5.0, 0.0]), 5.0) is None, "5 is where it begins again: never a reading"
    assert unwrap(np.array([50.0, 49.0]), 100.0) is None, "a step back is no turn of almost the whole range"
    rising = np.array([4.0, 5.0])
    assert unwrap(rising, None) is rising


def test_a_counter_is_interpolated_and_cut_to_what_was_seen() -> None:
    t = np.array([1_000_000, 2_000_000, 3_000_000])
    counter = np.array([0.0, 10.0, 30.0])
    assert difference(t, counter, [(1_500_000, 2_500_000)]) == pytest.approx((15.0, 1.0))
    assert difference(t, counter, [(0, 2_000_000)]) == pytest.approx((10.0, 1.0))
    assert difference(t, counter, [(0, 500_000)]) == (0.0, 0.0)
    # Half of the span was seen: the rest is taken to be as the seen half.
    assert counter_energy(t, counter, [(0, 2_000_000)]) == pytest.approx(20.0)
    assert counter_energy(t, counter, [(0, 500_000)]) is None


def test_intervals_are_closed_at_the_start_and_open_at_the_end() -> None:
    t = np.array([0, 1, 2, 3, 4, 5])
    assert inside(t, [(1, 3), (4, 5)]).tolist() == [False, True, True, False, True, False]
