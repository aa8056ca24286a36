"""The language model's tensors and metadata, as llama.cpp's converter writes them (convert_hf_to_gguf.py)."""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from pocketvlm.weights.blocks import Type
from pocketvlm.weights.container import Tensor
from pocketvlm.weights.quantise import FILE_TYPES
from pocketvlm.weights.scaling import scale
from pocketvlm.weights.shapes.architecture import Shape
from pocketvlm.weights.shapes.mixture import matrix_type

# What a layer adds is kept this many powers of two below the token's own embedding, so that the next token
# depends on this one and the answer does not stand still at one word.
_QUIET = 3
_BIAS = -6


def language_tensors(shape: Shape, quantisation: str) -> Iterator[Tensor]:
    """Yield the tensors in the order of the file.

    Raises:
        ValueError: the widths do not suit the quantisation.
    """
    of = shape.language
    head = of.width // of.heads
    kv_width = head * of.kv_heads
    biased = of.architecture == "phi2"
    silent = of.tokens().silent

    def matrix(
        name: str, rows: int, columns: int, layer: int | None = None, less: int = 0, bias: bool = biased
    ) -> Iterator[Tensor]:
        place = "" if layer is None else f"blk.{layer}."
        kind = matrix_type(quantisation, f"{name}.weight", columns, layer or 0, of.layers)
        yield Tensor(f"{place}{name}.weight", (rows, columns), exponent=scale(columns, less), kind=kind)
        if bias:
            yield Tensor(f"{place}{name}.bias", (rows,), exponent=_BIAS, kind=Type.F32)

    def norm(name: str) -> Iterator[Tensor]:
        yield Tensor(f"{name}.weight", (of.width,), "ones", kind=Type.F32)
        if biased:
            yield Tensor(f"{name}.bias", (of.width,), "zeros", kind=Type.F32)

    yield Tensor(
        "token_embd.weight",
        (of.vocabulary, of.width),
        kind=matrix_type(quantisation, "token_embd.weight", of.width),
    )
    for layer in range(of.layers):
        yield from norm(f"blk.{layer}.attn_norm")
        yield from matrix("attn_q", of.width, of.width, layer)
        yield from matrix("attn_k", kv_width, of.width, layer)
        yield from matrix("attn_v", kv_width, of.width, layer)
        yield from matrix("attn_output", of.width, of.width, layer, _QUIET)
        if of.architecture == "llama":
            yield from norm(f"blk.{layer}.ffn_norm")
            yield from matrix("ffn_gate", of.feed_forward, of.width, layer)
        yield from matrix("ffn_up", of.feed_forward, of.width, layer)
        yield from matrix("ffn_down", of.width, of.feed_forward, layer, _QUIET)
    yield from norm("output_norm")
    # Tokens that are no printable text score exactly 0 and are never the best of many.
    yield Tensor(
        "output.weight",
        (of.vocabulary, of.width),
        exponent=scale(of.width),
        silent=silent,
        kind=matrix_type(quantisation, "output.weight", of.width),
    )
    if biased:
        yield Tensor("output.bias", (of.vocabulary,), "zeros", kind=Type.F32)


def describe_language(writer: gguf.GGUFWriter, shape: Shape, quantisation: str) -> None:
    """Add the metadata of a language model, tokenizer included."""
    of = shape.language
    writer.add_name(shape.name)
    writer.add_description(f"synthetic weights, seed {shape.seed}")
    writer.add_file_type(FILE_TYPES[quantisation])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(of.vocabulary)
    writer.add_context_length(of.context)
    writer.add_embedding_length(of.width)
    writer.add_block_count(of.layers)
    writer.add_feed_forward_length(of.feed_forward)
    writer.add_head_count(of.heads)
    writer.add_head_count_kv(of.kv_heads)
    writer.add_rope_dimension_count(of.rope_dimensions)
    vocabulary = of.tokens()
    if of.architecture == "llama":
        writer.add_layer_norm_rms_eps(of.epsilon)
        writer.add_tokenizer_model("llama")
        # The tokenizer joins the pair of highest score first: earlier pieces win.
        writer.add_token_scores([float(-index) for index in range(of.vocabulary)])
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
    else:
        writer.add_layer_norm_eps(of.epsilon)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("phi-2")
        writer.add_token_merges(vocabulary.merges)
        end = vocabulary.kinds.index(gguf.TokenType.CONTROL)
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)
        writer.add_add_bos_token(False)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
