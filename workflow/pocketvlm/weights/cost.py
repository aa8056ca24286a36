"""What a model's shape asks of a device: bytes read for a token, operations of prefill and of image encoding.

Computed from the tensors of a weights record (`weights.description`) and from nothing else, so that a number
of parameters is never a matter of opinion. Every count is the least that the computation needs: a rate that
exceeds what follows from it is impossible, whatever the runtime does. A multiply-add is two operations.

Source of which tensors are read when: llama.cpp's graphs (`src/llama-model.cpp`, `tools/mtmd/clip.cpp`).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from pocketvlm.weights.container import Tensor as Planned

_BLOCK = re.compile(r"(?:v\.)?blk\.(\d+)\.(.+)\.weight")
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"

Tensor = Mapping[str, Any]


class UnknownShapeError(ValueError):
    """The tensors are none of a shape whose cost is known; the text says what is missing."""


@dataclass(frozen=True)
class LanguageCost:
    """What one token costs in a language model.

    Attributes:
        weight_bytes: weights read to decode a token: all, but of the token embedding one row. A model that
            uses the embedding as its output reads it whole, once.
        key_widths, value_widths: elements that a position adds to the cache of keys and values, by layer.
        layer_elements: elements of the matrices of each layer.
        cached_elements: those of the last layer that make keys and values. Of a token whose prediction
            nobody asks for, nothing else of that layer is needed.
        head_elements: of the matrix that gives the prediction.
        query_width: elements of a query, all heads together.
    """

    weight_bytes: int
    key_widths: tuple[int, ...]
    value_widths: tuple[int, ...]
    layer_elements: tuple[int, ...]
    cached_elements: int
    head_elements: int
    query_width: int

    def cache_bytes(self, key_type: str, value_type: str) -> float:
        """Return the bytes that one position takes in the cache of keys and values, all layers.

        Raises:
            UnknownShapeError: a type is none of ggml's.
        """
        return sum(self.key_widths) * type_bytes(key_type) + sum(self.value_widths) * type_bytes(value_type)

    def prefill_operations(self, tokens: int, predictions: int) -> float:
        """Return the operations that evaluating a run of tokens needs at least.

        Args:
            tokens: how many; each sees itself and those before it in the run, whatever else is in the cache.
            predictions: for how many of them, at the end of the run, a prediction is asked for.
        """
        inner = sum(self.layer_elements[:-1])
        last = tokens * self.cached_elements
        asked = predictions * (self.layer_elements[-1] - self.cached_elements + self.head_elements)
        products = tokens * inner + last + asked
        # Scores and their weighted sum: two products with each visible position.
        seen = tokens * (tokens + 1) / 2 * (len(self.layer_elements) - 1) + predictions * tokens
        return 2.0 * products + 4.0 * self.query_width * seen


def language_cost(record: Mapping[str, Any]) -> LanguageCost:
    """Return the cost of a language model.

    Args:
        record: its weights record; `tensors` is read.

    Raises:
        UnknownShapeError: it is no decoder of the shape that is understood here.
    """
    tensors: Sequence[Tensor] = record["tensors"]
    named = {tensor["name"]: tensor for tensor in tensors}
    layers = _layers(tensors)
    if _EMBEDDING not in named or not layers:
        raise UnknownShapeError("the file holds no token embedding or no layers of a language model")
    if any("_exps" in part for layer in layers for part in layer):
        raise UnknownShapeError("a mixture of experts reads only some of its weights for a token")
    embedding, head = named[_EMBEDDING], named.get(_HEAD)
    keys, values = [], []
    for layer in layers:
        try:
            query_width = layer["attn_output"]["shape"][0]
            fused = layer.get("attn_qkv")
            half = (_rows(fused) - query_width) // 2 if fused else 0
            keys.append(half or _rows(layer["attn_k"]))
            values.append(half or _rows(layer["attn_v"]))
        except KeyError as error:
            raise UnknownShapeError(f"a layer has no tensor {error.args[0]}") from None
    width = layers[-1]["attn_output"]["shape"][1]
    weight_bytes = sum(tensor["bytes"] for tensor in tensors)
    if head is not None:
        weight_bytes -= embedding["bytes"] - embedding["bytes"] // _rows(embedding)
    return LanguageCost(
        weight_bytes=weight_bytes,
        key_widths=tuple(keys),
        value_widths=tuple(values),
        layer_elements=tuple(sum(map(_elements, layer.values())) for layer in layers),
        cached_elements=(keys[-1] + values[-1]) * width,
        head_elements=_elements(head or embedding),
        query_width=query_width,
    )


def encode_operations(record: Mapping[str, Any], image_tokens: int) -> float:
    """Return the operations that encoding one image needs at least.

    The last block of the file is left out, as llama.cpp leaves it out for LLaVA's projectors; a runtime that
    runs it does more. Of a projector that shrinks the image, what is behind its linear layers is counted at
    the fewest positions, those that it puts out.

    Args:
        record: the weights record of a vision tower with its projector (GGUF architecture `clip`).
        image_tokens: how many tokens the image became.

    Raises:
        UnknownShapeError: it is no ViT of the shape that is understood here.
    """
    tensors: Sequence[Tensor] = record["tensors"]
    named = {tensor["name"]: tensor for tensor in tensors}
    layers = _layers(tensors)
    positions_of = named.get("v.position_embd.weight")
    if positions_of is None or not layers:
        raise UnknownShapeError("the file holds no position embedding or no blocks of a vision tower")
    width, positions = int(positions_of["shape"][0]), _rows(positions_of)
    patches = positions - ("v.class_embd" in named)
    products = 0.0
    for layer in layers[:-1]:
        products += positions * sum(map(_elements, layer.values()))
    products += 2.0 * positions * positions * width * (len(layers) - 1)
    for tensor in tensors:
        name = tensor["name"]
        if name.startswith("v.patch_embd.weight"):
            products += patches * _elements(tensor)
        elif name.startswith("mm.") and len(tensor["shape"]) > 1:
            linear = re.match(r"mm\.(\d+|model\.mlp\.\d+)\.", name)
            # Squeeze and excite works once on the mean of all positions.
            once = re.search(r"\.fc\d\.", name)
            products += (patches if linear else 1 if once else image_tokens) * _elements(tensor)
    return 2.0 * products


def pseudo_record(tensors: Iterable[Planned]) -> dict[str, Any]:
    """Return the `tensors` of a weights record for tensors that nobody has written.

    Args:
        tensors: name, shape (rows first), bytes and type of each, as `weights.shapes.tensors` gives them.
    """
    return {
        "tensors": [
            {
                "name": tensor.name,
                "shape": [*reversed(tensor.shape)],
                "type": tensor.kind.name,
                "bytes": tensor.bytes,
            }
            for tensor in tensors
        ]
    }


def type_bytes(name: str) -> float:
    """Return the bytes of one element of a ggml type, e.g. 2 for `f16` and 18/32 for `q4_0`.

    Raises:
        UnknownShapeError: there is no such type.
    """
    try:
        elements, size = (int(size) for size in GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]])
    except KeyError:
        raise UnknownShapeError(f"ggml has no type {name}") from None
    return size / elements


def _layers(tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Return the matrices of each layer or block by their part's name, in order."""
    found: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for tensor in tensors:
        match = _BLOCK.fullmatch(tensor["name"])
        if match and len(tensor["shape"]) > 1:
            found[int(match[1])][match[2]] = tensor
    if sorted(found) != list(range(len(found))):
        raise UnknownShapeError("the numbers of the layers have a gap")
    return [found[number] for number in sorted(found)]


def _rows(tensor: Tensor) -> int:
    return int(tensor["shape"][1])


def _elements(tensor: Tensor) -> int:
    return math.prod(tensor["shape"])
