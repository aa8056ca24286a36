"""A LLaVA of two GGUF files as the two networks, the vocabulary and the settings of MNN's LLM engine.

The networks have the inputs and outputs that the engine (transformers/llm/engine of alibaba/MNN, 3.6) asks
for by name. What differs from llama.cpp: the engine wants the image between two tokens of its own, and it
fits the image into the square instead of padding it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np

from pocketvlm.errors import IntegrityError
from pocketvlm.weights.mnn.graph import Array, Graph

IMAGE_TOKENS = ("<image>", "</image>", "<patch>")
"""Added to the vocabulary, silent: begin, end and each position of the image."""

_MAGIC, _SENTENCEPIECE = 430, 0
# Lower than any score of a token that is meant to be printed.
_SILENT = -1e4


@dataclass(frozen=True)
class Source:
    """One GGUF file with float tensors."""

    path: Path
    reader: gguf.GGUFReader

    @classmethod
    def open(cls, path: Path, architecture: str) -> Source:
        """Open a file; IntegrityError if it is of another architecture or no GGUF file."""
        try:
            source = cls(path, gguf.GGUFReader(path))
            found = source.value("general.architecture")
        except (ValueError, IndexError, OSError) as error:
            raise IntegrityError(
                f"{path.name} is no GGUF file or a damaged one: {error}",
                where=str(path),
                do="Remove it so that it is made again",
            ) from error
        if found != architecture:
            raise IntegrityError(
                f"{path.name} is of architecture {found}: only {architecture} can be converted for MNN",
                where=str(path),
                do="Use a LLaVA: a language model of llama's shape and a tower of clip's with projector mlp",
            )
        return source

    def value(self, name: str) -> Any:
        """Return a value of the file's metadata; IntegrityError if it is not there."""
        field = self.reader.get_field(name)
        if field is None:
            raise IntegrityError(
                f"{self.path.name} has no {name}",
                where=str(self.path),
                do="Remove it so that it is made again",
            )
        return field.contents()

    def tensors(self) -> Mapping[str, Array]:
        """Return the tensors by name, each as float32 once it is asked for."""
        return _Tensors({tensor.name: tensor for tensor in self.reader.tensors}, self.path)


class _Tensors(dict[str, Any]):
    def __init__(self, found: Mapping[str, gguf.gguf_reader.ReaderTensor], path: Path) -> None:
        super().__init__(found)
        self.path = path

    def __getitem__(self, name: str) -> Array:
        if name not in self:
            raise IntegrityError(
                f"{self.path.name} has no tensor {name}", where=str(self.path), do="Use a LLaVA"
            )
        tensor = super().__getitem__(name)
        if tensor.tensor_type.name not in ("F32", "F16"):
            raise IntegrityError(
                f"{name} of {self.path.name} is of type {tensor.tensor_type.name}: F16 or F32 is needed",
                where=str(self.path),
                do="Convert the file that is not quantised",
            )
        return np.asarray(tensor.data, np.float32)


def language(source: Source, weights: BinaryIO) -> Graph:
    """Return the language model as a network; its matrices go to `weights`."""
    graph, tensors = Graph(weights), source.tensors()
    width, heads = source.value("llama.embedding_length"), source.value("llama.attention.head_count")
    kv_heads, epsilon = source.value("llama.attention.head_count_kv"), _epsilon(source)
    size = width // heads
    embedded = graph.input("input_ids", [-1, 1, width])
    mask = graph.input("attention_mask", [])
    positions = graph.input("position_ids", [1, -1], "DT_INT32")
    wanted = graph.input("logits_index", [1], "DT_INT32")
    turn = _rotation(graph, positions, size, _base(source))
    hidden = graph.reshape(embedded, [1, -1, width])
    for layer in range(source.value("llama.block_count")):
        name = f"blk.{layer}"

        def part(normed: int, which: str, count: int, name: str = name) -> int:
            made = graph.linear(normed, tensors[f"{name}.attn_{which}.weight"])
            return graph.reshape(made, [1, -1, count, size])

        normed = graph.norm(hidden, tensors[f"{name}.attn_norm.weight"], None, epsilon)
        query, key = turn(part(normed, "q", heads), heads), turn(part(normed, "k", kv_heads), kv_heads)
        seen = graph.attention(query, key, part(normed, "v", kv_heads), mask, cache=True)
        added = graph.linear(graph.reshape(seen, [1, -1, width]), tensors[f"{name}.attn_output.weight"])
        hidden = graph.binary("ADD", hidden, added)
        normed = graph.norm(hidden, tensors[f"{name}.ffn_norm.weight"], None, epsilon)
        gate = graph.unary("SILU", graph.linear(normed, tensors[f"{name}.ffn_gate.weight"]))
        inner = graph.binary("MUL", gate, graph.linear(normed, tensors[f"{name}.ffn_up.weight"]))
        hidden = graph.binary("ADD", hidden, graph.linear(inner, tensors[f"{name}.ffn_down.weight"]))
    last = graph.norm(graph.from_position(hidden, wanted), tensors["output_norm.weight"], None, epsilon)
    scores, silent = tensors["output.weight"], len(IMAGE_TOKENS)
    bias = np.zeros(len(scores) + silent, np.float32)
    bias[-silent:] = _SILENT
    graph.linear(last, np.vstack([scores, np.zeros((silent, width))]), bias, name="logits")
    return graph


def _rotation(graph: Graph, positions: int, size: int, base: float) -> Callable[[int, int], int]:
    """Return what turns neighbouring channels of each head by an angle that grows with the position."""
    half = size // 2
    speed = graph.constant(base ** (-np.arange(half) / half), [1, 1, 1, half, 1])
    angle = graph.binary("MUL", graph.reshape(graph.to_float(positions), [1, -1, 1, 1, 1]), speed)
    cosine, sine = graph.unary("COS", angle), graph.unary("SIN", angle)

    def turned(tensor: int, heads: int) -> int:
        real, imaginary = graph.split(graph.reshape(tensor, [1, -1, heads, half, 2]), 4, [1, 1])
        pair = [
            graph.binary(kind, graph.binary("MUL", one, cosine), graph.binary("MUL", other, sine))
            for kind, one, other in (("SUB", real, imaginary), ("ADD", imaginary, real))
        ]
        return graph.reshape(graph.concatenate(pair, 4), [1, -1, heads, size])

    return turned


def vision(source: Source, weights: BinaryIO) -> Graph:
    """Return the vision tower and its projector as a network; its matrices go to `weights`."""
    graph, tensors = Graph(weights), source.tensors()
    width, heads = (
        source.value(f"clip.vision.{key}") for key in ("embedding_length", "attention.head_count")
    )
    side, epsilon = (
        source.value("clip.vision.image_size"),
        source.value("clip.vision.attention.layer_norm_epsilon"),
    )
    patches = (side // source.value("clip.vision.patch_size")) ** 2

    def norm(tensor: int, name: str) -> int:
        return graph.norm(tensor, tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    def linear(tensor: int, name: str) -> int:
        return graph.linear(tensor, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    image = graph.input("image", [1, 3, side, side])
    cut = graph.reshape(graph.convolution(image, tensors["v.patch_embd.weight"]), [1, width, patches])
    first = graph.constant(tensors["v.class_embd"], [1, 1, width])
    hidden = graph.concatenate([first, graph.permute(cut, [0, 2, 1])], 1)
    places = graph.constant(tensors["v.position_embd.weight"], [1, patches + 1, width])
    hidden = norm(graph.binary("ADD", hidden, places), "v.pre_ln")
    mask = graph.constant(np.zeros((1, 1, patches + 1, patches + 1)))
    # LLaVA-1.5 takes what the last layer but one makes of each patch.
    for layer in range(source.value("clip.vision.block_count") - 1):
        name = f"v.blk.{layer}"
        normed = norm(hidden, f"{name}.ln1")
        query, key, value = (
            graph.reshape(linear(normed, f"{name}.attn_{part}"), [1, -1, heads, width // heads])
            for part in "qkv"
        )
        seen = graph.reshape(graph.attention(query, key, value, mask, cache=False), [1, -1, width])
        hidden = graph.binary("ADD", hidden, linear(seen, f"{name}.attn_out"))
        inner = linear(norm(hidden, f"{name}.ln2"), f"{name}.ffn_up")
        # The quick approximation of GELU.
        slope = graph.unary("SIGMOID", graph.binary("MUL", inner, graph.constant(np.array([1.702]))))
        inner = graph.binary("MUL", inner, slope)
        hidden = graph.binary("ADD", hidden, linear(inner, f"{name}.ffn_down"))
    shown = graph.from_position(hidden, graph.integers([1]))
    made = linear(graph.unary("GELU", linear(shown, "mm.0")), "mm.2")
    graph.reshape(made, [-1, 1, tensors["mm.2.weight"].shape[0]], name="image_embeds")
    return graph


def _epsilon(source: Source) -> float:
    return float(source.value("llama.attention.layer_norm_rms_epsilon"))


def _base(source: Source) -> float:
    field = source.reader.get_field("llama.rope.freq_base")
    return 10000.0 if field is None else float(field.contents())


def embeddings(source: Source) -> bytes:
    """Return the embedding of every token as bfloat16, [tokens, channels], rounded to nearest."""
    table = source.tensors()["token_embd.weight"]
    table = np.vstack([table, np.zeros((len(IMAGE_TOKENS), table.shape[1]), np.float32)])
    bits = table.view(np.uint32)
    return bytes(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes())


def vocabulary(source: Source) -> str:
    """Return the tokenizer as the engine reads it: SentencePiece, with the tokens of the image."""
    tokens, scores = source.value("tokenizer.ggml.tokens"), source.value("tokenizer.ggml.scores")
    kinds = source.value("tokenizer.ggml.token_type")
    image = range(len(tokens), len(tokens) + len(IMAGE_TOKENS))
    pieces = [*zip(tokens, scores, kinds, strict=True)]
    pieces += [(token, 0.0, int(gguf.TokenType.CONTROL)) for token in IMAGE_TOKENS]
    lines = [f"{base64.b64encode(token.encode()).decode()} {score:g} {kind}" for token, score, kind in pieces]
    # No token ends the answer: every run is to use its whole budget.
    head = [f"{_MAGIC} {_SENTENCEPIECE}", f"{len(image)} 0 0", " ".join(map(str, image)), str(len(pieces))]
    return "\n".join([*head, *lines, ""])


def settings(model: Source, tower: Source) -> dict[str, Any]:
    """Return what the engine must know of the networks, its `config.json`."""
    width, heads = model.value("llama.embedding_length"), model.value("llama.attention.head_count")
    begin = len(model.value("tokenizer.ggml.tokens"))
    return {
        "llm_model": "llm.mnn",
        "llm_weight": "llm.mnn.weight",
        "visual_model": "visual.mnn",
        "hidden_size": width,
        "layer_nums": model.value("llama.block_count"),
        "key_value_shape": [2, 1, 0, model.value("llama.attention.head_count_kv"), width // heads],
        "attention_mask": "float",
        "is_visual": True,
        "image_size": tower.value("clip.vision.image_size"),
        # Of values from 0 to 255, where the file has them from 0 to 1.
        "image_mean": [255.0 * mean for mean in tower.value("clip.vision.image_mean")],
        "image_norm": [1 / (255.0 * deviation) for deviation in tower.value("clip.vision.image_std")],
        "vision_start": begin,
        "vision_end": begin + 1,
        "image_pad": begin + 2,
        "use_template": False,
    }
