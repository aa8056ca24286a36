"""What a shape is: the dimensions of a vision-language model, and how they are read from
config/models.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pocketvlm.errors import ConfigError
from pocketvlm.weights.vocabulary import Vocabulary, byte_pairs, check_size, pieces


@dataclass(frozen=True)
class LanguageShape:
    """The language model.

    Attributes:
        architecture: `llama` (RMS norm, SwiGLU, no biases; tokenizer of pieces) or `phi2` (layer norm,
        attention and
            feed-forward in parallel, biases; tokenizer of byte pairs).
        layers, width, feed_forward, heads, kv_heads, context, vocabulary: sizes.
        rope_dimensions: of a head's channels, those that are rotated.
        epsilon: of the norms.
    """

    architecture: Literal["llama", "phi2"]
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int
    vocabulary: int
    rope_dimensions: int
    epsilon: float

    def tokens(self) -> Vocabulary:
        """Return the tokenizer's vocabulary."""
        return pieces(self.vocabulary) if self.architecture == "llama" else byte_pairs(self.vocabulary)


@dataclass(frozen=True)
class VisionShape:
    """The vision tower: a ViT over `image_size` pixels a side, cut into patches of `patch_size`.

    Attributes:
        tower: `clip` (a class token, a norm before the first layer, quick GELU) or `siglip` (neither, GELU,
        a bias of
            the patches).
        layers: in the file, as converters write them: without the last one, which these models do not use.
        run: how many of them llama.cpp is to run; without it all but the last in the file.
        width, feed_forward, heads: sizes.
    """

    tower: Literal["clip", "siglip"]
    layers: int
    width: int
    feed_forward: int
    heads: int
    image_size: int
    patch_size: int
    run: int | None = None

    @property
    def side(self) -> int:
        """Patches along a side; pixels beyond the last whole patch are not seen."""
        return self.image_size // self.patch_size


# The grid that llama.cpp's LDP projectors are written for: patches along a side.
LDP_SIDE = 24


@dataclass(frozen=True)
class Shape:
    """A vision-language model: everything that decides the bytes of its files."""

    name: str
    seed: int
    language: LanguageShape
    vision: VisionShape
    projector: Literal["mlp", "ldp", "ldpv2"]

    @property
    def image_tokens(self) -> int:
        """How many tokens an image becomes."""
        patches = self.vision.side**2
        return patches if self.projector == "mlp" else patches // 4


def shape_from_config(name: str, entry: Mapping[str, Any]) -> Shape:
    """Return the shape of a model of config/models.yaml; `entry` is its section `shape`, valid by the schema.

    Raises:
        ConfigError: sizes do not fit each other.
    """
    shape = Shape(
        name=name,
        seed=entry["seed"],
        language=LanguageShape(**entry["language"]),
        vision=VisionShape(**entry["vision"]),
        projector=entry["projector"],
    )
    language, vision = shape.language, shape.vision
    problems = {
        "language.width is no multiple of language.heads": language.width % language.heads,
        "language.heads is no multiple of language.kv_heads": language.heads % language.kv_heads,
        "language.width and language.feed_forward must be multiples of 32, the block of Q4_0 and Q8_0":
            language.width % 32 + language.feed_forward % 32,
        "language.rope_dimensions is odd or more than a head has":
            language.rope_dimensions % 2 or language.rope_dimensions > language.width // language.heads,
        "vision.width is no multiple of vision.heads": vision.width % vision.heads,
        "vision.image_size is less than vision.patch_size": vision.image_size < vision.patch_size,
        "vision.layers must be at least 2, for llama.cpp leaves out the last one": vision.layers < 2,
        "vision.run is more than vision.layers": (vision.run or 0) > vision.layers,
        f"llama.cpp's projector {shape.projector} takes {LDP_SIDE} patches a side, these are {vision.side}":
            shape.projector != "mlp" and vision.side != LDP_SIDE,
    }  # fmt: skip
    try:
        check_size(language.vocabulary, byte_pairs=language.architecture == "phi2")
    except ValueError as error:
        problems[f"language.vocabulary is {language.vocabulary}: {error}"] = True
    for problem, wrong in problems.items():
        if wrong:
            raise ConfigError(
                f"model {name}: {problem}", where=f"config/models.yaml, {name}: shape", do="Correct the sizes"
            )
    return shape
