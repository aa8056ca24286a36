"""What a weights file is: its hash, and its tensors, written beside it by the job that made it.

The record is an output of that job and of no other: a file that was changed afterwards no longer agrees
with it. What follows from a shape (parameters, bytes read for a token, operations) is computed from it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType

from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import read_json, sha256_file, write_json

FORMAT = 1


class _HeaderReader(GGUFReader):
    """The reader without the elements of arrays: a vocabulary of 376,000 words takes 0.3 s instead of 16."""

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        offset = orig_offs + 12
        if item == GGUFValueType.STRING:
            length = struct.Struct(">Q" if self.byte_order == "S" else "<Q")
            for _ in range(count):
                offset += 8 + int(length.unpack(self.data[offset : offset + 8].tobytes())[0])
        elif item in self.gguf_scalar_to_np:
            offset += count * np.dtype(self.gguf_scalar_to_np[item]).itemsize
        else:
            raise ValueError(f"an array of arrays of {item.name}")
        return offset - orig_offs, [], [], [GGUFValueType.ARRAY, item]


def read_header(path: Path) -> GGUFReader:
    """Return a reader of a GGUF file's scalar metadata and tensors; its arrays have no elements.

    Raises:
        IntegrityError: it is no GGUF file, or a damaged one.
    """
    try:
        return _HeaderReader(path)
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        raise IntegrityError(
            f"{path.name} is no GGUF file or a damaged one: {error}",
            where=str(path),
            do="Remove it so that it is made again",
        ) from error


def describe(path: Path) -> dict[str, Any]:
    """Return the record of a GGUF file.

    Returns:
        `sha256` and `bytes` of the file; `metadata`: its scalar keys; `parameters`: elements of all tensors;
        `tensors`: `{name, shape, type, bytes}` each, `shape` in the order of GGUF (fastest first).

    Raises:
        IntegrityError: it is no GGUF file, or a damaged one.
    """
    reader = read_header(path)
    tensors: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "shape": [int(size) for size in tensor.shape],
            "type": tensor.tensor_type.name,
            "bytes": int(tensor.n_bytes),
        }
        for tensor in reader.tensors
    ]
    metadata = {
        name: field.contents()
        for name, field in reader.fields.items()
        if field.types[0] != GGUFValueType.ARRAY and not name.startswith("GGUF.")
    }
    return {
        "format": FORMAT,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "metadata": metadata,
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "tensors": tensors,
    }


def record_of(weights: Path) -> Path:
    """Return where the record of a weights file is: beside it, ending in `.json`."""
    return weights.with_suffix(".json")


def write_record(weights: Path) -> dict[str, Any]:
    """Describe a weights file that the calling job has just made, write the record and return it."""
    record = describe(weights)
    write_json(record_of(weights), record)
    return record


def read_record(weights: Path) -> Mapping[str, Any]:
    """Return the record of a weights file.

    Raises:
        IntegrityError: there is none, or it is none of this format.
    """
    path = record_of(weights)
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{weights.name} has no record of what it was made as: {error}",
            where=str(path),
            do=f"Remove {weights} so that both are made again",
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise IntegrityError(
            f"{path.name} is no record of weights of format {FORMAT}",
            where=str(path),
            do=f"Remove {weights} and {path} so that both are made again",
        )
    return record


def checked_sha256(weights: Path) -> str:
    """Return the hash of a weights file that still is what its job made.

    Raises:
        IntegrityError: the file was changed since, or there is no record.
    """
    expected, actual = read_record(weights)["sha256"], sha256_file(weights)
    if actual != expected:
        raise IntegrityError(
            f"{weights.name} was changed since it was made: its sha256 is {actual}, expected {expected}",
            where=str(weights),
            do="Remove it so that it is made again",
        )
    return actual
