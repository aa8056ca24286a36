"""Differences by ranks: what a library gives, coverage of the intervals, ties, the correction for many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pocketvlm.analyse import ranks


@pytest.mark.parametrize("n", [3, 9, 40, 120])
def test_pairs_are_judged_as_by_the_exact_test(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    found = ranks.paired(differences, confidence=0.95)
    assert found.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert found.low <= found.shift <= found.high and found.n == n
    flipped = ranks.paired(-differences, confidence=0.95)
    assert flipped.p == pytest.approx(found.p) and flipped.effect == pytest.approx(-found.effect)
    assert (flipped.shift, flipped.low) == (pytest.approx(-found.shift), pytest.approx(-found.high))


def test_many_pairs_go_over_into_the_normal_distribution() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, ranks.EXACT_TO + 1)
    exact = ranks.paired(differences[:-1], confidence=0.95)
    normal = ranks.paired(differences, confidence=0.95)
    reference = stats.wilcoxon(differences, method="asymptotic", correction=True).pvalue
    assert normal.p == pytest.approx(reference, rel=1e-6)
    assert normal.low == pytest.approx(exact.low, abs=0.05) and normal.high == pytest.approx(
        exact.high, abs=0.02
    )


def test_ties_and_zeros_are_counted_by_every_assignment_of_signs() -> None:
    differences = np.array([0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 2.0, 3.0])
    sizes = stats.rankdata(np.abs(differences)) * (differences != 0)
    seen = sizes[differences > 0].sum()
    sums = [
        sum(rank for bit, rank in enumerate(sizes) if rank and signs >> bit & 1)
        for signs in range(1 << len(sizes))
    ]
    least = min(seen, sizes.sum() - seen)
    expected = 2 * np.mean([one <= least for one in sums])
    assert ranks.paired(differences, confidence=0.9).p == pytest.approx(expected)
    nothing = ranks.paired(np.zeros(12), confidence=0.95)
    assert (nothing.p, nothing.shift, nothing.low, nothing.high, nothing.effect, nothing.error) == (
        1,
        0,
        0,
        0,
        0,
        0,
    )


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    held = [0, 0]
    for _ in range(600):
        pairs = ranks.paired(generator.standard_t(3, 15) + 1, confidence=0.9)
        two = ranks.unpaired(generator.standard_t(3, 12), generator.standard_t(3, 15) + 1, confidence=0.9)
        held[0] += pairs.low <= 1 <= pairs.high
        held[1] += two.low <= 1 <= two.high
    assert all(0.87 < count / 600 < 0.95 for count in held), held


def test_two_samples_are_judged_as_by_the_library() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(0, 1, 20), np.round(generator.normal(0.5, 1, 25), 1)
    found = ranks.unpaired(first, second, confidence=0.95)
    reference = stats.mannwhitneyu(first, second, method="asymptotic")
    assert found.p == pytest.approx(reference.pvalue)
    assert found.effect == pytest.approx(1 - 2 * reference.statistic / (20 * 25))
    assert found.low < found.shift < found.high


def test_so_few_pairs_can_never_be_significant() -> None:
    for alpha in (0.05, 0.01, 0.0005):
        least = ranks.least_pairs(alpha)
        assert ranks.paired(np.arange(1.0, least + 1), confidence=0.95).p <= alpha
        assert ranks.paired(np.arange(1.0, least), confidence=0.95).p > alpha


def test_the_correction_is_holms() -> None:
    assert ranks.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert ranks.holm([]) == [] and ranks.holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isclose(ranks.quantile(0.975), stats.norm.ppf(0.975))
