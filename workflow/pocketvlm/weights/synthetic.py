"""Synthetic weights: a model of LLaVA-1.5's shape, at any size, from a seed.

Two GGUF files, as llama.cpp's converter would write them for LLaVA-1.5: a language model of architecture
`llama` and a vision tower with its two-layer projector (`clip`, projector `mlp`). Every value is a float16
bit pattern put together
from the integer output of a PCG64 generator, so that no rounding of any machine takes part in it: the files
    are the same bytes everywhere. The answers are nonsense made of printable syllables; times, memory and
    energy are those of a trained model of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import gguf

from pocketvlm.errors import ConfigError
from pocketvlm.weights.blocks import Type
from pocketvlm.weights.container import Tensor, write_gguf
from pocketvlm.weights.scaling import scale
from pocketvlm.weights.vocabulary import (
    CONTROL_PIECES,
    INVENTED_WORDS,
    PIECE_CHARACTERS,
    beginnings,
    invented_words,
)

Role = Literal["model", "mmproj"]

# The normalisation constants of the vision tower of LLaVA-1.5 (OpenAI CLIP ViT-L/14).
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True)
class Language:
    """The language model: a LLaMA of `layers` blocks and `width` channels."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int
    vocabulary: int


@dataclass(frozen=True)
class Vision:
    """The vision tower: a ViT over `image_size` pixels a side, cut into patches of `patch_size`.

    `layers` counts the last one, which LLaVA-1.5 leaves out when it takes its features.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    image_size: int
    patch_size: int

    @property
    def tokens(self) -> int:
        """How many tokens an image becomes."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class Preset:
    """Everything that decides the bytes of a synthetic model.

    `words` are the words of a prompt that the tokenizer knows as one token each; it spells all others in
    characters. Without any, a prompt has about as many tokens as characters.
    """

    name: str
    seed: int
    language: Language
    vision: Vision
    words: tuple[str, ...]


def preset_from_config(name: str, entry: Mapping[str, Any]) -> Preset:
    """Return the preset of a model whose `weights_kind` is `synthetic` in config/models.yaml.

    Raises:
        ConfigError: a key is missing, unknown, no positive integer, or the sizes do not fit each other.
    """
    where = f"config/models.yaml, {name}"

    def integers(section: str, kind: type[Any]) -> dict[str, int]:
        given = entry.get(section)
        if not isinstance(given, Mapping):
            raise ConfigError(f"model {name} has no section {section}", where=where, do="Add it")
        wanted = [field.name for field in fields(kind)]
        if odd := sorted(set(given) ^ set(wanted)):
            raise ConfigError(
                f"{section} of model {name} has missing or unknown keys: {', '.join(odd)}",
                where=where,
                do=f"Give exactly {', '.join(wanted)}",
            )
        for key, value in given.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(
                    f"{section}.{key} of model {name} is {value!r}",
                    where=where,
                    do="Give a positive integer",
                )
        return dict(given)

    language = Language(**integers("language", Language))
    vision = Vision(**integers("vision", Vision))
    words, seed = entry.get("words", []), entry.get("seed")
    for word in words:
        if not isinstance(word, str) or not word.isascii() or not word.isalpha():
            raise ConfigError(
                f"words of model {name} has {word!r}, which is no word of ASCII letters",
                where=where,
                do="Correct it; quote words like on and no, which YAML reads as truth values",
            )
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"seed of model {name} is {seed!r}", where=where, do="Give an integer")
    preset = Preset(name, seed, language, vision, tuple(words))
    limit = INVENTED_WORDS
    first_piece = len(_fixed_pieces(preset))
    problems = {
        "language.width is no multiple of language.heads": language.width % language.heads,
        "language.heads is no multiple of language.kv_heads": language.heads % language.kv_heads,
        "language.width and language.feed_forward must be multiples of 32, the block of Q4_0 and Q8_0":
            language.width % 32 + language.feed_forward % 32,
        "vision.width is no multiple of vision.heads": vision.width % vision.heads,
        "vision.image_size is no multiple of vision.patch_size": vision.image_size % vision.patch_size,
        "vision.layers must be at least 2, for the last one is not run": vision.layers < 2,
        f"language.vocabulary must lie between {first_piece + 1} and {first_piece + limit}":
            not first_piece < language.vocabulary <= first_piece + limit,
    }  # fmt: skip
    for problem, wrong in problems.items():
        if wrong:
            raise ConfigError(f"model {name}: {problem}", where=where, do="Change the preset's sizes")
    return preset


def write(preset: Preset, role: Role, destination: Path) -> None:
    """Write one of a preset's two files as GGUF with float16 matrices; it appears complete or not at all.

    Args:
        preset: shape and seed.
        role: `model` (language model and tokenizer) or `mmproj` (vision tower and projector).
        destination: the file to write; its folder is made.
    """
    if role == "model":
        write_gguf(
            "llama",
            lambda writer: _describe_language(writer, preset),
            _language_tensors(preset),
            preset.seed,
            destination,
        )
    else:
        write_gguf(
            "clip",
            lambda writer: _describe_vision(writer, preset),
            _vision_tensors(preset),
            preset.seed,
            destination,
        )


def _language_tensors(preset: Preset) -> Iterator[Tensor]:
    shape = preset.language
    width, inner = shape.width, shape.feed_forward
    kv_width = width // shape.heads * shape.kv_heads
    yield Tensor("token_embd.weight", (shape.vocabulary, width))
    for layer in range(shape.layers):
        name = f"blk.{layer}"
        yield Tensor(f"{name}.attn_norm.weight", (width,), "ones", kind=Type.F32)
        yield Tensor(f"{name}.attn_q.weight", (width, width), exponent=scale(width))
        yield Tensor(f"{name}.attn_k.weight", (kv_width, width), exponent=scale(width))
        yield Tensor(f"{name}.attn_v.weight", (kv_width, width), exponent=scale(width))
        # What a layer adds is kept small beside the token's own embedding, so that the next token depends
        # on this one and the answer does not stand still at one word.
        yield Tensor(f"{name}.attn_output.weight", (width, width), exponent=scale(width, 3))
        yield Tensor(f"{name}.ffn_norm.weight", (width,), "ones", kind=Type.F32)
        yield Tensor(f"{name}.ffn_gate.weight", (inner, width), exponent=scale(width))
        yield Tensor(f"{name}.ffn_up.weight", (inner, width), exponent=scale(width))
        yield Tensor(f"{name}.ffn_down.weight", (width, inner), exponent=scale(inner, 3))
    yield Tensor("output_norm.weight", (width,), "ones", kind=Type.F32)
    # Control and byte tokens score exactly 0 and are never the best of many: the answer stays printable.
    yield Tensor(
        "output.weight", (shape.vocabulary, width), exponent=scale(width), silent=((0, len(CONTROL_PIECES)),)
    )


def _vision_tensors(preset: Preset) -> Iterator[Tensor]:
    shape = preset.vision
    width, inner, patch = shape.width, shape.feed_forward, shape.patch_size

    def linear(name: str, rows: int, columns: int, less: int = 0) -> Iterator[Tensor]:
        yield Tensor(f"{name}.weight", (rows, columns), exponent=scale(columns, less))
        yield Tensor(f"{name}.bias", (rows,), exponent=-6, kind=Type.F32)

    def norm(name: str) -> Iterator[Tensor]:
        yield Tensor(f"{name}.weight", (width,), "ones", kind=Type.F32)
        yield Tensor(f"{name}.bias", (width,), "zeros", kind=Type.F32)

    yield Tensor("v.class_embd", (width,), kind=Type.F32)
    yield Tensor("v.patch_embd.weight", (width, 3, patch, patch), exponent=scale(3 * patch * patch))
    yield Tensor("v.position_embd.weight", (shape.tokens + 1, width), exponent=-1)
    yield from norm("v.pre_ln")
    for layer in range(shape.layers):
        name = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v"):
            yield from linear(f"{name}.{part}", width, width)
        yield from linear(f"{name}.attn_out", width, width, 2)
        yield from norm(f"{name}.ln1")
        yield from linear(f"{name}.ffn_up", inner, width)
        yield from linear(f"{name}.ffn_down", width, inner, 2)
        yield from norm(f"{name}.ln2")
    yield from norm("v.post_ln")
    yield from linear("mm.0", preset.language.width, width)
    yield from linear("mm.2", preset.language.width, preset.language.width)


def _describe_language(writer: gguf.GGUFWriter, preset: Preset) -> None:
    shape = preset.language
    writer.add_name(preset.name)
    writer.add_description(f"synthetic weights, seed {preset.seed}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    pieces = _pieces(preset)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    # The tokenizer joins the pair of highest score first: earlier pieces win.
    writer.add_token_scores([float(-index) for index in range(len(pieces))])
    normal, byte = int(gguf.TokenType.NORMAL), int(gguf.TokenType.BYTE)
    kinds = [int(gguf.TokenType.UNKNOWN), int(gguf.TokenType.CONTROL), int(gguf.TokenType.CONTROL)]
    kinds += [byte] * 256
    writer.add_token_types(kinds + [normal] * (len(pieces) - len(kinds)))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def _describe_vision(writer: gguf.GGUFWriter, preset: Preset) -> None:
    shape = preset.vision
    writer.add_name(preset.name)
    writer.add_description(f"synthetic weights, seed {preset.seed}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    # LLaVA-1.5's tower uses the quick approximation of GELU: neither flag.
    writer.add_bool("clip.use_gelu", False)
    writer.add_bool("clip.use_silu", False)
    writer.add_uint32("clip.vision.image_size", shape.image_size)
    writer.add_uint32("clip.vision.patch_size", shape.patch_size)
    writer.add_uint32("clip.vision.embedding_length", shape.width)
    writer.add_uint32("clip.vision.feed_forward_length", shape.feed_forward)
    writer.add_uint32("clip.vision.projection_dim", preset.language.width)
    writer.add_uint32("clip.vision.block_count", shape.layers)
    writer.add_uint32("clip.vision.attention.head_count", shape.heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", CLIP_MEAN)
    writer.add_array("clip.vision.image_std", CLIP_STD)


def _fixed_pieces(preset: Preset) -> list[str]:
    return [*CONTROL_PIECES, *PIECE_CHARACTERS, *beginnings(preset.words)]


def _pieces(preset: Preset) -> list[str]:
    """Return the vocabulary: control and byte tokens, printable characters, known words, then invented
    words."""
    pieces = _fixed_pieces(preset)
    return [*pieces, *invented_words(preset.language.vocabulary - len(pieces))]
