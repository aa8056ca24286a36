"""Tiny versions of each architecture of the shapes without weights."""

from __future__ import annotations

import copy
from typing import Any

LLAMA: dict[str, Any] = {
    "architecture": "llama",
    "layers": 8,
    "width": 256,
    "feed_forward": 512,
    "heads": 4,
    "kv_heads": 4,
    "context": 512,
    "vocabulary": 6000,
    "rope_dimensions": 64,
    "epsilon": 1e-6,
}
PHI2: dict[str, Any] = {
    **LLAMA,
    "architecture": "phi2",
    "vocabulary": 7000,
    "rope_dimensions": 24,
    "epsilon": 1e-5,
}
CLIP: dict[str, Any] = {
    "tower": "clip",
    "layers": 3,
    "width": 64,
    "feed_forward": 128,
    "heads": 2,
    "image_size": 48,
    "patch_size": 2,
}
# Like the original's, its width is no power of 2, and a strip of the image is no whole patch.
SIGLIP: dict[str, Any] = {
    "tower": "siglip",
    "layers": 2,
    "run": 2,
    "width": 96,
    "feed_forward": 104,
    "heads": 2,
    "image_size": 50,
    "patch_size": 4,
}

SHAPES: dict[str, dict[str, Any]] = {
    "llava": {"seed": 3, "language": LLAMA, "vision": CLIP, "projector": "mlp"},
    "mobilevlm": {"seed": 3, "language": LLAMA, "vision": CLIP, "projector": "ldp"},
    "mobilevlm-v2": {"seed": 3, "language": LLAMA, "vision": CLIP, "projector": "ldpv2"},
    "imp": {"seed": 3, "language": PHI2, "vision": SIGLIP, "projector": "mlp"},
}
IMAGE_TOKENS = {"llava": 576, "mobilevlm": 144, "mobilevlm-v2": 144, "imp": 144}
TEMPLATES = {"llava": "vicuna", "mobilevlm": "deepseek", "mobilevlm-v2": "deepseek", "imp": "vicuna"}


def changed(name: str, **values: Any) -> dict[str, Any]:
    """Return a shape's section with some values changed: `language__width=48`, `projector="ldp"`."""
    entry = copy.deepcopy(SHAPES[name])
    for path, value in values.items():
        *folders, key = path.split("__")
        inner = entry
        for folder in folders:
            inner = inner[folder]
        inner[key] = value
    return entry
