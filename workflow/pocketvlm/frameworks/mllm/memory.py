"""How much memory an mllm program takes, as far as its weights tell.

An .mllm file names its tensors and no dimensions of the model, and mllm says nowhere what its buffers take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks.held import weights_alone


def footprint(records: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes that a run holds at least, by what holds them; errors as `weights_alone`."""
    return weights_alone(records)
