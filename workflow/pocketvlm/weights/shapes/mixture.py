"""Which type each tensor of a language model has at a quantisation, as llama.cpp's quantiser decides it.

Source: `llama_tensor_get_type` and `llama_model_quantize_impl` in src/llama-quant.cpp of llama.cpp 0.3.16,
for dense models of the architectures here and without an importance matrix.
"""

from __future__ import annotations

from pocketvlm.weights.blocks import Type, layout

# The tensors' type by the name of the quantisation: llama.cpp's `default_type`.
QUANTISATIONS = {"F16": Type.F16, "Q4_0": Type.Q4_0, "Q8_0": Type.Q8_0, "Q4_K_M": Type.Q4_K}

# Where a row is no whole number of blocks; of what is left out the rows are always whole.
_FALLBACK = {Type.Q6_K: Type.Q8_0}


def matrix_type(quantisation: str, name: str, columns: int, layer: int = 0, layers: int = 1) -> Type:
    """Return how a matrix is stored.

    Args:
        quantisation: one of QUANTISATIONS.
        name: the tensor's name within its layer: `attn_v.weight`, `output.weight`.
        columns: the length of a row.
        layer, layers: the number of its layer, and how many there are.

    Raises:
        ValueError: a row is no whole number of blocks, and there is no type to fall back to.
    """
    kind = QUANTISATIONS[quantisation]
    more = quantisation == "Q4_K_M" and name in ("attn_v.weight", "ffn_down.weight")
    if (name == "output.weight" and kind in (Type.Q4_0, Type.Q4_K)) or (more and _more_bits(layer, layers)):
        kind = Type.Q6_K
    if columns % layout(kind).elements:
        kind = _FALLBACK.get(kind, kind)
    if columns % layout(kind).elements:
        raise ValueError(f"{name} has rows of {columns}, no whole number of blocks of {kind.name}")
    return kind


def _more_bits(layer: int, layers: int) -> bool:
    """Return whether `Q4_K_M` spends six bits on a layer: the first and last eighth, and every third
    between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
