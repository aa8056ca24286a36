"""How large random weights are, so that what a model computes stays near unit size."""

from __future__ import annotations


def scale(fan_in: int, less: int = 0) -> int:
    """Return the exponent at which a sum over `fan_in` terms of unit size stays near or below unit size.

    2**-(bits/2) is close to 1/sqrt(fan_in); `less` takes away further powers of two.
    """
    return -((fan_in.bit_length()) // 2) - less
