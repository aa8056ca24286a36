"""The picture of a workload in the page: once, small enough, and only if it is the one that was measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from pocketvlm.provenance import sha256_file

WIDEST = 760
"""Pixels of the longer side in the page: twice the width it is shown at on a desktop."""


@dataclass(frozen=True)
class Picture:
    """A workload's picture for the page, or the reason why there is none.

    Attributes:
        source: a `data:` address; empty when there is no picture.
        width, height: in pixels, as embedded.
        note: what was done to it, or why it is missing.
    """

    source: str
    width: int
    height: int
    note: str


def picture(workload: Mapping[str, Any], images: Sequence[Path]) -> Picture:
    """Return the picture of a workload.

    Args:
        workload: the workload as it was hashed to the key of its runs: `image`, `image_sha256`.
        images: the picture files at hand; the one that was measured is known by its hash.
    """
    wanted = str(workload.get("image_sha256", ""))
    path = next((one for one in images if sha256_file(one) == wanted), None)
    if path is None:
        return Picture("", 0, 0, f"no picture at hand has the sha256 that was measured ({wanted[:16]}…)")
    try:
        with Image.open(path) as opened:
            opened.load()
            width, height = opened.size
            shown = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        return Picture("", 0, 0, f"{path.name} cannot be shown: {error}")
    shown.thumbnail((WIDEST, WIDEST))
    written = io.BytesIO()
    shown.save(written, format="JPEG", quality=82, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
    size = f"{width} × {height} pixels"
    return Picture(
        source, *shown.size, f"{path.name}, {size} as measured; here as JPEG, {shown.width} × {shown.height}"
    )
