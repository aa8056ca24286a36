"""The vision tower's and projector's tensors and metadata, as llama.cpp's converter for LLaVA writes them.

Source: tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py for which tensors there are and their types,
tools/mtmd/clip.cpp for their names and the keys that are read (llama.cpp 0.3.16).
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from pocketvlm.weights.blocks import Type
from pocketvlm.weights.container import Tensor
from pocketvlm.weights.scaling import scale
from pocketvlm.weights.shapes.architecture import Shape

# Channels are scaled by a fourth of them, rounded to a multiple of 8 (torchvision's InvertedResidualConfig).
_SQUEEZE, _DIVISOR = 4, 8
_BIAS = -6
# Mean and deviation of the pixels that the towers were trained with.
_PIXELS = {
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "siglip": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}
_EPSILON = {"clip": 1e-5, "siglip": 1e-6}


def vision_tensors(shape: Shape) -> Iterator[Tensor]:
    """Yield the tensors of tower and projector in the order of the file."""
    yield from _tower(shape)
    text = shape.language.width
    if shape.projector == "mlp":
        yield from _linear("mm.0", text, shape.vision.width)
        yield from _linear("mm.2", text, text)
    elif shape.projector == "ldp":
        yield from _linear("mm.model.mlp.1", text, shape.vision.width)
        yield from _linear("mm.model.mlp.3", text, text)
        for block in (1, 2):
            yield from _bottleneck(f"mm.model.mb_block.{block}.block", text)
    else:
        yield from _linear("mm.model.mlp.0", text, shape.vision.width)
        yield from _linear("mm.model.mlp.2", text, text)
        yield from _depthwise("mm.model.peg.0", text)
        yield Tensor("mm.model.peg.0.bias", (text,), exponent=_BIAS, kind=Type.F32)


def _tower(shape: Shape) -> Iterator[Tensor]:
    of = shape.vision
    width, inner, patch = of.width, of.feed_forward, of.patch_size
    classes = 1 if of.tower == "clip" else 0
    if classes:
        yield Tensor("v.class_embd", (width,), kind=Type.F32)
    yield Tensor("v.patch_embd.weight", (width, 3, patch, patch), exponent=scale(3 * patch * patch))
    if of.tower == "siglip":
        yield Tensor("v.patch_embd.bias", (width,), exponent=_BIAS, kind=Type.F32)
    yield Tensor("v.position_embd.weight", (of.side**2 + classes, width), exponent=-1)
    if of.tower == "clip":
        yield from _norm("v.pre_ln", width)
    for layer in range(of.layers):
        name = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v"):
            yield from _linear(f"{name}.{part}", width, width)
        yield from _linear(f"{name}.attn_out", width, width, 2)
        yield from _norm(f"{name}.ln1", width)
        yield from _linear(f"{name}.ffn_up", inner, width)
        yield from _linear(f"{name}.ffn_down", width, inner, 2)
        yield from _norm(f"{name}.ln2", width)


def _bottleneck(name: str, width: int) -> Iterator[Tensor]:
    """Yield one inverted residual of MobileVLM's LDP: depthwise, squeeze and excite, pointwise."""
    narrow = _divisible(width / _SQUEEZE)
    yield from _depthwise(f"{name}.0.0", width)
    yield from _norm(f"{name}.0.1", width)
    yield from _linear(f"{name}.1.fc1", narrow, width)
    yield from _linear(f"{name}.1.fc2", width, narrow)
    yield Tensor(f"{name}.2.0.weight", (width, width), exponent=scale(width))
    yield from _norm(f"{name}.2.1", width)


def _divisible(channels: float) -> int:
    """Return the nearest multiple of _DIVISOR, up where that takes away more than a tenth."""
    rounded = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * channels else rounded


def _depthwise(name: str, channels: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (channels, 3, 3), exponent=scale(9))


def _linear(name: str, rows: int, columns: int, less: int = 0) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (rows, columns), exponent=scale(columns, less))
    yield Tensor(f"{name}.bias", (rows,), exponent=_BIAS, kind=Type.F32)


def _norm(name: str, width: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (width,), "ones", kind=Type.F32)
    yield Tensor(f"{name}.bias", (width,), "zeros", kind=Type.F32)


def describe_vision(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Add the metadata of a vision tower with its projector."""
    of = shape.vision
    mean, deviation = _PIXELS[of.tower]
    writer.add_name(shape.name)
    writer.add_description(f"synthetic weights, seed {shape.seed}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", shape.projector)
    # CLIP has the quick approximation of GELU (neither flag), SigLIP the tanh one, which ggml calls GELU.
    writer.add_bool("clip.use_gelu", of.tower == "siglip")
    writer.add_bool("clip.use_silu", False)
    writer.add_uint32("clip.vision.image_size", of.image_size)
    writer.add_uint32("clip.vision.patch_size", of.patch_size)
    writer.add_uint32("clip.vision.embedding_length", of.width)
    writer.add_uint32("clip.vision.feed_forward_length", of.feed_forward)
    writer.add_uint32("clip.vision.projection_dim", shape.language.width)
    writer.add_uint32("clip.vision.block_count", of.layers)
    writer.add_uint32("clip.vision.attention.head_count", of.heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", _EPSILON[of.tower])
    if of.run is not None:
        # Layers counted from 1: the features are those that come out of this one.
        writer.add_array("clip.vision.feature_layer", [of.run])
    writer.add_array("clip.vision.image_mean", mean)
    writer.add_array("clip.vision.image_std", deviation)
