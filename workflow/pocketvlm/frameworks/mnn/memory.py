"""How much memory a run of MNN takes, as far as its weights tell.

MNN repacks weights when it loads them and plans its workspace by itself; neither is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks.held import weights_alone


def footprint(records: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes that a run holds at least, by what holds them; errors as `weights_alone`."""
    return weights_alone(records)
