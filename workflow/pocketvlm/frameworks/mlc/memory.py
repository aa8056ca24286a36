"""How much memory an MLC program takes, as far as its weights tell.

Shards are quantised in MLC's own way, and buffers are laid out when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks.held import weights_alone


def footprint(records: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes that a run holds at least, by what holds them; errors as `weights_alone`."""
    return weights_alone(records)
