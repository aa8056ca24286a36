"""Synthetic weights: a model of LLaVA-1.5's shape, at any size, from a seed.

Two GGUF files, as llama.cpp's converter would write them for LLaVA-1.5: a language model of architecture
`llama` and a vision tower with its two-layer projector (`clip`, projector `mlp`). Every value is a float16
bit pattern put together
from the integer output of a PCG64 generator, so that no rounding of any machine takes part in it: the files
    are the same bytes everywhere. The answers are nonsense made of printable syllables; times, memory and
    energy are those of a trained model of the same shape.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

from pocketvlm.errors import ConfigError

Role = Literal["model", "mmproj"]
Array = npt.NDArray[Any]

# Elements of a tensor made at a time: 8 MiB of float16.
CHUNK = 1 << 22

# The normalisation constants of the vision tower of LLaVA-1.5 (OpenAI CLIP ViT-L/14).
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

SYLLABLES = [a + b for a in "bdfghjklmnprstvz" for b in "aeiou"]
PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
# How the tokenizer of the LLaMA family writes a space.
SPACE = "\u2581"


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
    limit = len(SYLLABLES) ** 3
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
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        partial = Path(folder) / "weights.gguf"
        if role == "model":
            writer = gguf.GGUFWriter(str(partial), "llama")
            _describe_language(writer, preset)
            tensors = list(_language_tensors(preset))
        else:
            writer = gguf.GGUFWriter(str(partial), "clip")
            _describe_vision(writer, preset)
            tensors = list(_vision_tensors(preset))
        for tensor in tensors:
            width = 2 if tensor.half else 4
            writer.add_tensor_info(
                tensor.name,
                list(tensor.shape),
                np.dtype(np.float16 if tensor.half else np.float32),
                math.prod(tensor.shape) * width,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        # The writer pads after each tensor; handing it the pieces of one would pad between them.
        stream = writer.fout[0] if isinstance(writer.fout, list) else None
        assert stream is not None
        writer.write_padding(stream, stream.tell())
        for tensor in tensors:
            written = 0
            for chunk in tensor.values(preset.seed):
                stream.write(chunk.tobytes())
                written += chunk.nbytes
            writer.write_padding(stream, written)
        writer.close()
        partial.chmod(0o644)
        partial.replace(destination)


@dataclass(frozen=True)
class _Tensor:
    """One tensor to be written.

    Attributes:
        name: as llama.cpp looks it up.
        shape: rows first, as numpy has it; GGUF lists it the other way round.
        fill: `random`, `ones` or `zeros`.
        exponent: random values are below 2**(exponent + 1) and have a root mean square of 0.88 * 2**exponent.
        zero_rows: how many of the first rows are zero.
        half: float16, else float32.
    """

    name: str
    shape: tuple[int, ...]
    fill: Literal["random", "ones", "zeros"] = "random"
    exponent: int = 0
    zero_rows: int = 0
    half: bool = True

    def values(self, seed: int) -> Iterator[Array]:
        """Yield the values in order, little-endian, in pieces of at most CHUNK elements."""
        count = math.prod(self.shape)
        if self.fill != "random":
            dtype = "<f2" if self.half else "<f4"
            yield np.full(count, 1 if self.fill == "ones" else 0, dtype=dtype)
            return
        key = hashlib.sha256(f"{seed}/{self.name}".encode()).digest()
        generator = np.random.PCG64(int.from_bytes(key[:16], "little"))
        zeros = self.zero_rows * (count // self.shape[0])
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            words = generator.random_raw((size + 3) // 4)
            bits = np.asarray(words).astype("<u8").view("<u2")[:size]
            # Sign and mantissa as they come; of the exponent two random bits, so that magnitudes span
            # 16-fold.
            biased = np.uint16(15 + self.exponent) - ((bits >> 10) & np.uint16(3))
            half = (bits & np.uint16(0x83FF)) | (biased << 10).astype("<u2")
            if start < zeros:
                half[: zeros - start] = 0
            values = half.astype("<u2").view("<f2")
            yield values if self.half else values.astype("<f4")


def _scale(fan_in: int, less: int = 0) -> int:
    """Return the exponent at which a sum over `fan_in` terms of unit size stays near or below unit size.

    2**-(bits/2) is close to 1/sqrt(fan_in); `less` takes away further powers of two.
    """
    return -((fan_in.bit_length()) // 2) - less


def _language_tensors(preset: Preset) -> Iterator[_Tensor]:
    shape = preset.language
    width, inner = shape.width, shape.feed_forward
    kv_width = width // shape.heads * shape.kv_heads
    yield _Tensor("token_embd.weight", (shape.vocabulary, width))
    for layer in range(shape.layers):
        name = f"blk.{layer}"
        yield _Tensor(f"{name}.attn_norm.weight", (width,), "ones", half=False)
        yield _Tensor(f"{name}.attn_q.weight", (width, width), exponent=_scale(width))
        yield _Tensor(f"{name}.attn_k.weight", (kv_width, width), exponent=_scale(width))
        yield _Tensor(f"{name}.attn_v.weight", (kv_width, width), exponent=_scale(width))
        # What a layer adds is kept small beside the token's own embedding, so that the next token depends
        # on this one and the answer does not stand still at one word.
        yield _Tensor(f"{name}.attn_output.weight", (width, width), exponent=_scale(width, 3))
        yield _Tensor(f"{name}.ffn_norm.weight", (width,), "ones", half=False)
        yield _Tensor(f"{name}.ffn_gate.weight", (inner, width), exponent=_scale(width))
        yield _Tensor(f"{name}.ffn_up.weight", (inner, width), exponent=_scale(width))
        yield _Tensor(f"{name}.ffn_down.weight", (width, inner), exponent=_scale(inner, 3))
    yield _Tensor("output_norm.weight", (width,), "ones", half=False)
    # Control and byte tokens score exactly 0 and are never the best of many: the answer stays printable.
    yield _Tensor(
        "output.weight", (shape.vocabulary, width), exponent=_scale(width), zero_rows=len(_control_pieces())
    )


def _vision_tensors(preset: Preset) -> Iterator[_Tensor]:
    shape = preset.vision
    width, inner, patch = shape.width, shape.feed_forward, shape.patch_size

    def linear(name: str, rows: int, columns: int, less: int = 0) -> Iterator[_Tensor]:
        yield _Tensor(f"{name}.weight", (rows, columns), exponent=_scale(columns, less))
        yield _Tensor(f"{name}.bias", (rows,), exponent=-6, half=False)

    def norm(name: str) -> Iterator[_Tensor]:
        yield _Tensor(f"{name}.weight", (width,), "ones", half=False)
        yield _Tensor(f"{name}.bias", (width,), "zeros", half=False)

    yield _Tensor("v.class_embd", (width,), half=False)
    yield _Tensor("v.patch_embd.weight", (width, 3, patch, patch), exponent=_scale(3 * patch * patch))
    yield _Tensor("v.position_embd.weight", (shape.tokens + 1, width), exponent=-1)
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


def _control_pieces() -> list[str]:
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def _fixed_pieces(preset: Preset) -> list[str]:
    characters = [SPACE if character == " " else character for character in PRINTABLE]
    # The tokenizer joins two neighbours at a time: it reaches a word by way of every beginning of it.
    beginnings = (SPACE + word[:end] for word in preset.words for end in range(1, len(word) + 1))
    return [*_control_pieces(), *characters, *dict.fromkeys(beginnings)]


def _pieces(preset: Preset) -> list[str]:
    """Return the vocabulary: control and byte tokens, printable characters, known words, then invented words.

    The invented ones (three syllables each) cannot come out of a prompt, because their beginnings are no
    pieces; they are what the model answers with.
    """
    pieces = _fixed_pieces(preset)
    base = len(SYLLABLES)
    for index in range(preset.language.vocabulary - len(pieces)):
        # A stride without a common divisor visits each of the words once, in no alphabetical order.
        number = index * 316433 % base**3
        syllables = (SYLLABLES[number // base**place % base] for place in range(3))
        pieces.append(SPACE + "".join(syllables))
    return pieces
