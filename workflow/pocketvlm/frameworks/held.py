"""The least memory that a run takes where nothing but the size of the weights is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.weights.cost import UnknownShapeError


def weights_alone(records: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the bytes of all weights, which are held in memory whole.

    More is held for certain, and how much is not known: a cell for which this is too much does not fit, and
    another may still not.

    Args:
        records: the weights record of each role; `bytes` is read.

    Raises:
        UnknownShapeError: a record has no size.
    """
    sizes = [record.get("bytes") for record in records.values()]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise UnknownShapeError("a weights record has no size")
    return {"weights alone": sum(size for size in sizes if size)}
