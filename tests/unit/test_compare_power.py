"""What the comparison finds and when it keeps silent, in 500 campaigns drawn from noise that was recorded."""

from __future__ import annotations

import numpy as np
import pytest

from tests.campaigns import NOISE, Noise, default_rules, recorded, simulate

PAIRS, CAMPAIGNS = 440, 500
"""The pairs that docs/compare.md advises for noise like this."""


@pytest.fixture(scope="module")
def noise() -> Noise:
    return recorded(NOISE)


def test_identical_builds_are_silent(noise: Noise) -> None:
    rates = simulate(noise, PAIRS, CAMPAIGNS, slower=1.0, rules=default_rules(), seed=1)
    assert rates.silent >= 0.95, rates
    assert all(0.93 <= share <= 0.97 for share in rates.covered.values()), rates


def test_a_slowdown_of_three_percent_is_found(noise: Noise) -> None:
    rates = simulate(noise, PAIRS, CAMPAIGNS, slower=1.03, rules=default_rules(), seed=2)
    assert all(share >= 0.95 for share in rates.found.values()), rates


def test_a_slowdown_of_decoding_alone_is_found_there(noise: Noise) -> None:
    rates = simulate(noise, PAIRS, 100, slower={"decode": 1.03}, rules=default_rules(), seed=3)
    assert rates.found["decode.tokens_per_second"] >= 0.9, rates


def test_what_is_said_to_be_visible_is_found(noise: Noise) -> None:
    """With fewer pairs, a slowdown of the size that the command says it would have found."""
    rules, pairs = default_rules(), PAIRS // 3
    said = simulate(noise, pairs, 100, slower=1.0, rules=rules, seed=4).visible
    for name, percent in said.items():
        found = simulate(noise, pairs, 200, slower=float(1 + percent / 100), rules=rules, seed=5).found[name]
        assert found >= rules.power - 0.05, (name, percent, found)


def test_drift_alone_is_no_difference() -> None:
    """A machine that gets twice as slow within a campaign, and waves of minutes besides."""
    time = np.arange(400)
    drift = (
        (1 + time / 400)
        * (1 + 0.1 * np.sin(time / 15))
        * np.exp(np.random.default_rng(1).normal(0, 0.01, 400))
    )
    share = {"load": 10, "text_prefill": 10, "image_encode": 10, "image_prefill": 10, "decode": 60}
    noise = Noise({name: part * drift for name, part in share.items()}, 101 * drift)
    assert simulate(noise, 40, 200, slower=1.0, rules=default_rules(), seed=6).silent >= 0.96
