"""Statistics of repeated runs against their definitions and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from pocketvlm.analyse.stats import bootstrap_median, summarise

OPTIONS = {"resamples": 2000, "confidence": 0.95, "seed": 1, "name": "x"}


def test_a_summary() -> None:
    found = summarise(np.array([1.0, 2.0, 3.0, 4.0, 10.0]), **OPTIONS)
    assert (found.n, found.mean, found.median) == (5, 4.0, 3.0)
    assert found.std == pytest.approx(np.std([1, 2, 3, 4, 10], ddof=1))
    assert (found.p05, found.p95) == pytest.approx((1.2, 8.8))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_values_give_no_interval(n: int) -> None:
    found = summarise(np.arange(n, dtype=float), **OPTIONS)
    assert found.n == n
    assert found.ci_low is None
    assert found.ci_high is None
    assert (found.std is None) == (n < 2)
    assert (found.median is None) == (n == 0)


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(3).normal(10, 2, 30)
    low, high = bootstrap_median(values, resamples=20_000, confidence=0.95, seed=1, name="x")
    theirs = bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=5
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.1)
    assert high == pytest.approx(theirs.high, abs=0.1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=20))
def test_the_interval_is_deterministic_and_within_the_values(drawn: list[float]) -> None:
    values = np.array(drawn)
    first = bootstrap_median(values, resamples=200, confidence=0.9, seed=7, name="cell|decode|x")
    assert first == bootstrap_median(values, resamples=200, confidence=0.9, seed=7, name="cell|decode|x")
    assert values.min() <= first[0] <= first[1] <= values.max()


def test_equal_values_have_a_point_for_an_interval() -> None:
    found = summarise(np.full(5, 16.0), **OPTIONS)
    assert (found.ci_low, found.median, found.ci_high, found.std) == (16.0, 16.0, 16.0, 0.0)


def test_seed_and_name_decide_the_draws() -> None:
    values = np.random.default_rng(0).normal(size=9)
    options = {"resamples": 100, "confidence": 0.95}
    one = bootstrap_median(values, seed=1, name="a", **options)
    assert one != bootstrap_median(values, seed=2, name="a", **options)
    assert one != bootstrap_median(values, seed=1, name="b", **options)
