"""Random values in the storage types of GGUF, put together from the integer output of a generator.

No rounding of any machine takes part, so that the bytes are the same everywhere. A quantised block is filled
with random bytes as a whole; then its scales are given a fixed magnitude, so that no value is infinite or NaN
and a tensor has the size that is asked for. Where the numbers of a block are not symmetric about 0, its
scale's sign (or its minimum) makes the mean 0: a mean of half a step would add up over thousands of columns
and drown all else.

The layouts are those of ggml's `block_q4_0`, `block_q8_0`, `block_q4_K` and `block_q6_K` (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Type = gguf.GGMLQuantizationType

# Elements of a float16 tensor made at a time (8 MiB), and bytes of a quantised one.
CHUNK = 1 << 22
CHUNK_BYTES = 1 << 20

_LEAST_NORMAL = -14
_SIGN, _MANTISSA = np.uint16(0x8000), np.uint16(0x03FF)


def _scales(bits: Array, exponent: int) -> Array:
    """Return float16 patterns of either sign with magnitudes from 2**exponent to 2**(exponent + 1)."""
    mantissa = bits & _MANTISSA
    if exponent >= _LEAST_NORMAL:
        magnitude = mantissa | np.uint16((exponent + 15) << 10)
    else:
        magnitude = (mantissa | np.uint16(0x0400)) >> np.uint16(_LEAST_NORMAL - exponent)
    return (bits & _SIGN) | magnitude


def _q4_0(blocks: Array, exponent: int) -> None:
    # A nibble less 8, with a root mean square of 4.6: 0.89 * 2**exponent in all.
    words = blocks.view("<u2")
    words[:, 0] = _scales(words[:, 0], exponent - 3)


def _q8_0(blocks: Array, exponent: int) -> None:
    # Root mean square of the bytes: 74. ggml's own quantiser never writes -128.
    quants = blocks[:, 2:].view(np.int8)
    np.maximum(quants, -127, out=quants)
    words = blocks.view("<u2")
    words[:, 0] = _scales(words[:, 0], exponent - 7)


def _q6_k(blocks: Array, exponent: int) -> None:
    # Six bits less 32 (18.5) by a scale of 6 to 9 (7.6) of either sign.
    scales = blocks[:, 192:208]
    magnitude = (scales & np.uint8(3)) + np.uint8(6)
    blocks[:, 192:208] = np.where(scales & np.uint8(0x80), np.uint8(0) - magnitude, magnitude)
    words = blocks.view("<u2")
    words[:, 104] = _scales(words[:, 104], exponent - 8)


def _q4_k(blocks: Array, exponent: int) -> None:
    # d * s * q - m * s with m = 7.5 * d and the same six bits s (24 to 39) twice: a nibble less 7.5 (4.6).
    seven_bits = (np.uint16(64) + (blocks[:, 0] & np.uint8(0x3E))).astype(np.float32)
    words = blocks.view("<u2")
    # Both are exact: few enough bits for float16, and down to an exponent of -10 for its subnormal numbers.
    words[:, 0] = np.ldexp(seven_bits, exponent - 14).astype("<f2").view("<u2")
    words[:, 1] = np.ldexp(seven_bits * np.float32(7.5), exponent - 14).astype("<f2").view("<u2")
    low = (blocks[:, 4:8] & np.uint8(0x0F)) + np.uint8(24)
    high = (blocks[:, 8:12] & np.uint8(0x0F)) + np.uint8(24)
    # get_scale_min_k4: of scales 4 to 7 the upper two bits are in those of scales 0 to 3.
    first = low | (high >> np.uint8(4) << np.uint8(6))
    blocks[:, 4:8] = first
    blocks[:, 8:12] = first
    nibble = high & np.uint8(0x0F)
    blocks[:, 12:16] = nibble | (nibble << np.uint8(4))


_FINISH: dict[Type, Callable[[Array, int], None]] = {
    Type.Q4_0: _q4_0,
    Type.Q8_0: _q8_0,
    Type.Q6_K: _q6_k,
    Type.Q4_K: _q4_k,
}


@dataclass(frozen=True)
class Layout:
    """How a type stores values: `elements` of them in `bytes`."""

    elements: int
    bytes: int


def layout(kind: Type) -> Layout:
    """Return the block of a storage type; of a plain type it is one value."""
    return Layout(*gguf.GGML_QUANT_SIZES[kind])


def random_half(generator: np.random.PCG64, count: int, exponent: int) -> Iterator[Array]:
    """Yield `count` random float16 values, little-endian, at most CHUNK at a time.

    They are below 2**(exponent + 1), span 16-fold, and have a root mean square of 0.88 * 2**exponent.
    """
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        words = generator.random_raw((size + 3) // 4)
        bits = np.asarray(words).astype("<u8").view("<u2")[:size]
        # Sign and mantissa as they come; of the exponent two random bits.
        biased = np.uint16(15 + exponent) - ((bits >> 10) & np.uint16(3))
        half = (bits & np.uint16(0x83FF)) | (biased << 10).astype("<u2")
        yield half.astype("<u2").view("<f2")


def random_blocks(
    generator: np.random.PCG64, kind: Type, count: int, exponent: int, silent: Sequence[tuple[int, int]] = ()
) -> Iterator[Array]:
    """Yield `count` random blocks of a quantised type, shape (blocks, bytes), about CHUNK_BYTES at a time.

    Args:
        generator: its raw output decides every bit.
        kind: Q4_0, Q8_0, Q4_K or Q6_K.
        count: blocks in all.
        exponent: the values' root mean square is about 0.88 * 2**exponent.
        silent: ranges [from, to) of blocks whose values are all 0.
    """
    size = layout(kind).bytes
    # Four blocks of an even size are whole words: no bit depends on where a chunk ends.
    chunk = CHUNK_BYTES // size // 4 * 4
    for start in range(0, count, chunk):
        number = min(chunk, count - start)
        words = np.asarray(generator.random_raw((number * size + 7) // 8)).astype("<u8", copy=False)
        blocks = words.view(np.uint8)[: number * size].reshape(number, size)
        _FINISH[kind](blocks, exponent)
        for first, last in silent:
            blocks[max(first - start, 0) : max(last - start, 0)] = 0
        yield blocks
