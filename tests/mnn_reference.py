"""The networks of a small LLaVA computed with NumPy from its GGUF files, apart from what converts them.

Run as a program with the paths of a bundle's library, converted weights, language model and vision tower, it
prints how far MNN's networks are from it, as JSON: the correlation of all values and the greatest difference.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TOKENS = [300, 412, 263, 4000, 5000, 7777, 350]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1}


def _softmax(scores: Any) -> Any:
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def logits(path: Path) -> Any:
    """Return the scores of every token after TOKENS."""
    tensors, about = _read(path)
    heads, kv_heads = about["llama.attention.head_count"], about["llama.attention.head_count_kv"]
    count, size = len(TOKENS), about["llama.embedding_length"] // heads
    hidden = tensors["token_embd.weight"][TOKENS]
    turn = np.arange(count)[:, None, None] * 10000.0 ** (-np.arange(size // 2) / (size // 2))

    def norm(values: Any, name: str) -> Any:
        return values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5) * tensors[f"{name}.weight"]

    def rotated(values: Any) -> Any:
        complex_ = values.reshape(count, -1, size // 2, 2) @ np.array([1, 1j])
        complex_ = complex_ * np.exp(1j * turn)
        return np.stack([complex_.real, complex_.imag], -1).reshape(count, -1, size)

    for layer in range(about["llama.block_count"]):
        at = f"blk.{layer}"
        normed = norm(hidden, f"{at}.attn_norm")
        q, k, v = (
            (normed @ tensors[f"{at}.attn_{part}.weight"].T).reshape(count, -1, size) for part in "qkv"
        )
        k, v = (np.repeat(part, heads // kv_heads, 1) for part in (rotated(k), v))
        scores = np.einsum("qhd,khd->hqk", rotated(q), k) / np.sqrt(size)
        scores = _softmax(np.where(np.tri(count, dtype=bool), scores, -np.inf))
        seen = np.einsum("hqk,khd->qhd", scores, v).reshape(count, -1)
        hidden = hidden + seen @ tensors[f"{at}.attn_output.weight"].T
        normed = norm(hidden, f"{at}.ffn_norm")
        gate = normed @ tensors[f"{at}.ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (normed @ tensors[f"{at}.ffn_up.weight"].T)
        hidden = hidden + inner @ tensors[f"{at}.ffn_down.weight"].T
    return norm(hidden[-1], "output_norm") @ tensors["output.weight"].T


def image_tokens(path: Path, image: Any) -> Any:
    """Return what an image [3, side, side] becomes: [patches, width of the language model]."""
    tensors, about = _read(path)
    heads, patch = about["clip.vision.attention.head_count"], about["clip.vision.patch_size"]
    side, width = image.shape[1] // patch, about["clip.vision.embedding_length"]

    def norm(values: Any, name: str) -> Any:
        values = values - values.mean(-1, keepdims=True)
        values = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5)
        return values * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def linear(values: Any, name: str) -> Any:
        return values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    cut = image.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
    cut = cut @ tensors["v.patch_embd.weight"].reshape(width, -1).T
    hidden = np.vstack([tensors["v.class_embd"], cut]) + tensors["v.position_embd.weight"]
    hidden = norm(hidden, "v.pre_ln")
    for layer in range(about["clip.vision.block_count"] - 1):
        at = f"v.blk.{layer}"
        normed = norm(hidden, f"{at}.ln1")
        q, k, v = (linear(normed, f"{at}.attn_{part}").reshape(len(normed), heads, -1) for part in "qkv")
        scores = _softmax(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(width // heads))
        hidden = hidden + linear(
            np.einsum("hqk,khd->qhd", scores, v).reshape(len(normed), -1), f"{at}.attn_out"
        )
        inner = linear(norm(hidden, f"{at}.ln2"), f"{at}.ffn_up")
        hidden = hidden + linear(inner / (1 + np.exp(-1.702 * inner)), f"{at}.ffn_down")
    inner = linear(hidden[1:], "mm.0")
    inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    return linear(inner, "mm.2")


def _compared(name: str, found: Any, expected: Any) -> dict[str, float]:
    found = np.asarray(found).ravel()[: expected.size]
    correlation = np.corrcoef(found, expected.ravel())[0, 1]
    return {name: float(correlation), f"{name}_off": float(np.abs(found - expected.ravel()).max())}


def main(library: str, weights: str, model: str, tower: str) -> None:
    """Print how the converted networks compare."""
    sys.path.insert(0, library)
    import MNN.expr
    import MNN.llm
    import MNN.nn

    llm = MNN.llm.create(f"{weights}/config.json")
    llm.set_config({"precision": "high", "memory": "high", "thread_num": 1})
    llm.load()
    made = _compared("language", llm.forward(TOKENS).read(), logits(Path(model)))
    side = json.loads(Path(weights, "config.json").read_text())["image_size"]
    image = np.random.default_rng(0).standard_normal((3, side, side)).astype(np.float32)
    network = MNN.nn.load_module_from_file(f"{weights}/visual.mnn", ["image"], ["image_embeds"])
    given = MNN.expr.const(image.ravel().tolist(), [1, 3, side, side], MNN.expr.NCHW)
    made |= _compared("vision", network.forward(given).read(), image_tokens(Path(tower), image))
    print(json.dumps(made), flush=True)
    del llm


if __name__ == "__main__":
    main(*sys.argv[1:])
