"""How much memory a run of `llama-mtmd-cli` takes: weights, KV cache, and the buffers it computes in.

The formulas give the buffers that llama.cpp 0.3.16 prints on the CPU to within 16 MiB. Their sum is 2 to 7 %
above what was resident at the peak, since not all of the workspace is touched. In MiB, context 4096, ubatch
512, f16 cache, no flash attention, weights not mapped, two threads, one image:

| shape, Q4_0 | weights | KV cache | workspace | sum | measured |
| --- | --- | --- | --- | --- | --- |
| LLaVA-1.5 7B | 4244 | 2048 | 350 | 6642 | 6482 |
| MobileVLM 3B | 2081 | 1280 | 332 | 3694 | 3446 |
| MobileVLM V2 3B | 2044 | 1280 | 332 | 3656 | 3404 |
| Imp-v1.5 3B | 2305 | 1280 | 352 | 3937 | 3761 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.weights.cost import UnknownShapeError, language_cost

_FLOAT = 4
# Copies of a layer's input and output that live at once, as the buffers above have them.
_COPIES, _VISION_COPIES = 6, 8


def footprint(records: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes that a run holds at its peak, by what holds them.

    Mapped weights count in full, too: what does not stay in memory is read again for each token.

    Args:
        records: the weights records of `model` and `mmproj` (`weights.description`).
        settings: all settings, as `resolve_settings` gives them.

    Raises:
        UnknownShapeError: the records are none of a shape whose buffers are known.
    """
    model, tower = records["model"], records["mmproj"]
    if any(name not in record for record in (model, tower) for name in ("tensors", "metadata", "bytes")):
        raise UnknownShapeError("a weights record lists no tensors")
    cost = language_cost(model)
    context, ubatch = int(settings["context"]), min(int(settings["ubatch"]), int(settings["batch"]))
    per_position = cost.cache_bytes(str(settings["kv_type_k"]).upper(), str(settings["kv_type_v"]).upper())
    width = _key(model, "embedding_length")
    scores = 0 if settings["flash_attention"] else _key(model, "attention.head_count") * context
    layer = ubatch * _FLOAT * (scores + context + _COPIES * width)
    prediction = ubatch * _FLOAT * (cost.head_elements // width + 2 * width)
    return {
        "weights": int(model["bytes"]) + int(tower["bytes"]),
        "KV cache": round(context * per_position),
        "workspace": max(layer, prediction) + _vision(tower),
    }


def _vision(tower: Mapping[str, Any]) -> int:
    """Return the bytes in which one image is encoded: scores of attention, and copies of a layer's values."""
    side = _key(tower, "vision.image_size") // _key(tower, "vision.patch_size")
    positions = side * side + 1
    heads, width = _key(tower, "vision.attention.head_count"), _key(tower, "vision.embedding_length")
    return _FLOAT * positions * (heads * positions + _VISION_COPIES * width)


def _key(record: Mapping[str, Any], name: str) -> int:
    metadata = record["metadata"]
    value = metadata.get(f"{metadata.get('general.architecture')}.{name}")
    if type(value) is not int or value < 1:
        raise UnknownShapeError(f"the file has no {name}")
    return value
