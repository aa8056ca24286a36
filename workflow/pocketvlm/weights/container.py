"""Writing a GGUF file tensor by tensor: values are made while they are written, and never held as a whole."""

from __future__ import annotations

import glob
import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np

from pocketvlm.weights.blocks import Array, Type, layout, random_blocks, random_half

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Tensor:
    """One tensor to be written.

    Attributes:
        name: as llama.cpp looks it up.
        shape: rows first, as numpy has it; GGUF lists it the other way round.
        fill: `random`, `ones` or `zeros`.
        exponent: random values have a root mean square of 0.88 * 2**exponent.
        silent: ranges [from, to) of rows that are zero.
        kind: how it is stored.
    """

    name: str
    shape: tuple[int, ...]
    fill: Literal["random", "ones", "zeros"] = "random"
    exponent: int = 0
    silent: tuple[tuple[int, int], ...] = ()
    kind: Type = Type.F16

    @property
    def elements(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What its values take in the file, without padding."""
        block = layout(self.kind)
        return self.elements // block.elements * block.bytes

    def values(self, seed: int) -> Iterator[Array]:
        """Yield the stored bytes in order, in pieces of some MiB, as arrays of whatever type."""
        if self.fill != "random":
            dtype = "<f2" if self.kind == Type.F16 else "<f4"
            yield np.full(self.elements, 1 if self.fill == "ones" else 0, dtype=dtype)
            return
        key = hashlib.sha256(f"{seed}/{self.name}".encode()).digest()
        generator = np.random.PCG64(int.from_bytes(key[:16], "little"))
        columns = self.elements // self.shape[0]
        if self.kind not in (Type.F16, Type.F32):
            block = layout(self.kind)
            row = columns // block.elements
            ranges = [(first * row, last * row) for first, last in self.silent]
            yield from random_blocks(
                generator, self.kind, self.elements // block.elements, self.exponent, ranges
            )
            return
        start = 0
        for chunk in random_half(generator, self.elements, self.exponent):
            for first, last in self.silent:
                chunk[max(first * columns - start, 0) : max(last * columns - start, 0)] = 0
            start += chunk.size
            yield chunk if self.kind == Type.F16 else chunk.astype("<f4")


def write_gguf(
    architecture: str,
    describe: Callable[[gguf.GGUFWriter], None],
    tensors: Iterable[Tensor],
    seed: int,
    destination: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write a GGUF file; it appears complete or not at all. Only one process at a time may write it.

    Args:
        architecture: `general.architecture`.
        describe: adds the other metadata.
        tensors: in the order of the file.
        seed: decides, with each tensor's name, its values.
        destination: the file; its folder is made.
        progress: called with the bytes of tensors written and to be written, after each piece.
    """
    wanted = list(tensors)
    total = sum(tensor.bytes for tensor in wanted)
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = f".{destination.name}.draft-"
    # A process that was killed could not remove its own, and one of them may be gigabytes.
    for left in destination.parent.glob(f"{glob.escape(draft)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=draft) as folder:
        partial = Path(folder) / "weights.gguf"
        writer = gguf.GGUFWriter(str(partial), architecture)
        describe(writer)
        for tensor in wanted:
            writer.add_tensor_info(
                tensor.name, list(tensor.shape), np.dtype(np.float16), tensor.bytes, raw_dtype=tensor.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        # The writer pads after each tensor; handing it the pieces of one would pad between them.
        stream = writer.fout[0] if isinstance(writer.fout, list) else None
        assert stream is not None
        writer.write_padding(stream, stream.tell())
        done = 0
        for tensor in wanted:
            written = 0
            for chunk in tensor.values(seed):
                stream.write(chunk.tobytes())
                written += chunk.nbytes
                progress(done + written, total)
            assert written == tensor.bytes, tensor.name
            done += written
            writer.write_padding(stream, written)
        writer.close()
        partial.chmod(0o644)
        partial.replace(destination)
