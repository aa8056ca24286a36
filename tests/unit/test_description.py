"""The record of a weights file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import sha256_file
from pocketvlm.weights.description import checked_sha256, describe, record_of, write_record


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model-f16.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "bc", "ä"])
    writer.add_token_scores([0.0, -1.0, -2.0])
    writer.add_array("nothing", [1])
    writer.add_eos_token_id(2)
    writer.add_tensor("one", np.ones((4, 64), dtype=np.float16))
    writer.add_tensor("two", np.ones((7,), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_says_what_the_file_holds(weights: Path) -> None:
    record = describe(weights)
    assert record["sha256"] == sha256_file(weights)
    assert record["bytes"] == weights.stat().st_size
    assert record["parameters"] == 4 * 64 + 7
    assert record["tensors"] == [
        {"name": "one", "shape": [64, 4], "type": "F16", "bytes": 512},
        {"name": "two", "shape": [7], "type": "F32", "bytes": 28},
    ]
    # What stands after the arrays is read right: they were stepped over by their true length.
    assert record["metadata"] == {
        "general.architecture": "llama",
        "llama.block_count": 3,
        "tokenizer.ggml.eos_token_id": 2,
    }


def test_the_reader_of_headers_agrees_with_the_library(weights: Path) -> None:
    for tensor, said in zip(gguf.GGUFReader(weights).tensors, describe(weights)["tensors"], strict=True):
        assert (tensor.name, math.prod(tensor.shape), tensor.n_bytes) == (
            said["name"],
            math.prod(said["shape"]),
            said["bytes"],
        )


def test_a_changed_file_is_refused_with_both_hashes(weights: Path) -> None:
    made = write_record(weights)["sha256"]
    assert checked_sha256(weights) == made
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"{sha256_file(weights)}, expected {made}"):
        checked_sha256(weights)


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"format": 0, "sha256": "00"})])
def test_without_a_record_it_is_not_used(weights: Path, content: str | None) -> None:
    if content is not None:
        record_of(weights).write_text(content)
    with pytest.raises(IntegrityError, match="record"):
        checked_sha256(weights)


@pytest.mark.parametrize("end", [0, 3, 20, 60, 200, -8])
def test_a_file_cut_anywhere_is_damaged(weights: Path, end: int) -> None:
    weights.write_bytes(weights.read_bytes()[:end])
    with pytest.raises(IntegrityError, match=r"model-f16\.gguf is no GGUF file or a damaged one"):
        describe(weights)
