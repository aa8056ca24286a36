"""Weights records and peaks made by hand, small enough to be reckoned by head."""

from __future__ import annotations

import math
from typing import Any

WIDTH, INNER, HEADS_WIDTH, VOCABULARY, KV = 64, 160, 64, 1000, 32
VISION, MLP, PATCHES = 48, 96, 16
PEAKS: dict[str, Any] = {
    "format": 1, "device": "bench", "kind": "local", "bandwidth_bytes_per_s": 1e9, "operations_per_s": 1e10,
    "source": "measured: by hand",
    "sources": {"bandwidth": "measured: by hand", "operations": "measured: by hand"},
    "reason": None, "cache_bytes": None,
}  # fmt: skip


def tensor(name: str, *shape: int, size: float = 2) -> dict[str, Any]:
    """A tensor of a record; shapes in GGUF's order, the contiguous dimension first."""
    return {"name": name, "shape": list(shape), "type": "F16", "bytes": int(math.prod(shape) * size)}


def language(layers: int = 3, *, tied: bool = False, fused: bool = False) -> dict[str, Any]:
    tensors = [tensor("token_embd.weight", WIDTH, VOCABULARY), tensor("output_norm.weight", WIDTH, size=4)]
    for layer in range(layers):
        place = f"blk.{layer}"
        queries = (
            [tensor(f"{place}.attn_qkv.weight", WIDTH, HEADS_WIDTH + 2 * KV)]
            if fused
            else [
                tensor(f"{place}.attn_q.weight", WIDTH, HEADS_WIDTH),
                tensor(f"{place}.attn_k.weight", WIDTH, KV),
                tensor(f"{place}.attn_v.weight", WIDTH, KV),
            ]
        )
        tensors += [
            tensor(f"{place}.attn_norm.weight", WIDTH, size=4),
            *queries,
            tensor(f"{place}.attn_output.weight", HEADS_WIDTH, WIDTH),
            tensor(f"{place}.ffn_up.weight", WIDTH, INNER),
            tensor(f"{place}.ffn_down.weight", INNER, WIDTH),
        ]
    if not tied:
        tensors.append(tensor("output.weight", WIDTH, VOCABULARY))
    return {"format": 1, "tensors": tensors}


def vision(blocks: int = 3, projector: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    tensors = [
        tensor("v.class_embd", VISION, size=4),
        tensor("v.patch_embd.weight", 14, 14, 3, VISION),
        tensor("v.position_embd.weight", VISION, PATCHES + 1),
    ]
    for block in range(blocks):
        place = f"v.blk.{block}"
        tensors += [tensor(f"{place}.attn_{part}.weight", VISION, VISION) for part in ("q", "k", "v", "out")]
        tensors += [
            tensor(f"{place}.ffn_up.weight", VISION, MLP),
            tensor(f"{place}.ffn_down.weight", MLP, VISION),
        ]
        tensors += [
            tensor(f"{place}.ffn_up.bias", MLP, size=4),
            tensor(f"{place}.ln1.weight", VISION, size=4),
        ]
    linear = (tensor("mm.0.weight", VISION, WIDTH), tensor("mm.2.weight", WIDTH, WIDTH))
    return {"format": 1, "tensors": [*tensors, *(projector or linear)]}
