"""LLaVA's weights for MNN: graphs that use every byte of their matrices, and a tool that may fail."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest

from pocketvlm.errors import ConfigError, IntegrityError, WorkloadError
from pocketvlm.provenance import read_json
from pocketvlm.weights.formats import checked_folder
from pocketvlm.weights.mnn import llava
from pocketvlm.weights.mnn.convert import convert
from pocketvlm.weights.mnn.graph import Graph
from pocketvlm.weights.synthetic import Preset, preset_from_config, write

LANGUAGE = {
    "layers": 2, "width": 32, "feed_forward": 64, "heads": 4, "kv_heads": 2, "context": 64, "vocabulary": 400,
}  # fmt: skip
VISION = {"layers": 3, "width": 32, "feed_forward": 64, "heads": 2, "image_size": 28, "patch_size": 14}

# What the tool does in these tests: it writes what it is asked for, or fails in the ways that it has.
TOOL = """
import pathlib
def mnnconvert(argv):
    made = pathlib.Path(argv[argv.index("--MNNModel") + 1])
    print({said!r})
    if {makes}:
        made.write_bytes(b"network")
        pathlib.Path(f"{{made}}.weight").write_bytes(b" ".join(word.encode() for word in argv[-4:]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Language model and vision tower of a tiny LLaVA, as GGUF."""
    folder = tmp_path_factory.mktemp("tiny")
    preset: Preset = preset_from_config(
        "tiny", {"seed": 3, "words": ["cup"], "language": LANGUAGE, "vision": VISION}
    )
    write(preset, "model", folder / "model.gguf")
    write(preset, "mmproj", folder / "mmproj.gguf")
    return folder / "model.gguf", folder / "mmproj.gguf"


def library(folder: Path, *, said: str = "Converted Success!", makes: bool = True) -> Path:
    (folder / "lib").mkdir()
    (folder / "lib/_tools.py").write_text(TOOL.format(said=said, makes=makes))
    return folder / "lib"


def check_matrices(graph: Graph, weights: bytes) -> None:
    """Every convolution names its own part of the file, and together they are all of it."""
    at = 0
    for operation in graph.operations:
        if operation["type"] == "Convolution":
            begin, length, bias = operation["main"]["external"]
            common = operation["main"]["common"]
            assert begin == at
            assert length == 4 * common["outputCount"] * common["inputCount"] * common["kernelX"] ** 2
            assert bias == 4 * common["outputCount"]
            at += length + bias
    assert at == len(weights)


def check_order(graph: Graph) -> None:
    """Every operation uses what was made before it, and names are unique."""
    made: set[int] = set()
    for operation in graph.operations:
        assert set(operation["inputIndexes"]) <= made
        made |= set(operation["outputIndexes"])
    assert made == set(range(len(graph.names)))
    assert len(set(graph.names)) == len(graph.names)


def test_the_networks_have_what_the_engine_asks_for_by_name(files: tuple[Path, Path]) -> None:
    stream = io.BytesIO()
    graph = llava.language(llava.Source.open(files[0], "llama"), stream)
    inputs = [operation["name"] for operation in graph.operations if operation["type"] == "Input"]
    assert inputs == ["input_ids", "attention_mask", "position_ids", "logits_index"]
    assert graph.names[-1] == "logits"
    check_matrices(graph, stream.getvalue())
    check_order(graph)
    cached = [op["main"]["kv_cache"] for op in graph.operations if op["type"] == "Attention"]
    assert cached == [True] * LANGUAGE["layers"]
    stream = io.BytesIO()
    graph = llava.vision(llava.Source.open(files[1], "clip"), stream)
    assert graph.names[-1] == "image_embeds"
    check_matrices(graph, stream.getvalue())
    check_order(graph)
    # The last layer is not run, and every position sees all: without a mask MNN lets it see those before it.
    attentions = [op for op in graph.operations if op["type"] == "Attention"]
    assert len(attentions) == VISION["layers"] - 1
    assert all(len(op["inputIndexes"]) == 4 and not op["main"]["kv_cache"] for op in attentions)


def test_embeddings_are_rounded_to_nearest(files: tuple[Path, Path]) -> None:
    source = llava.Source.open(files[0], "llama")
    table = source.tensors()["token_embd.weight"]
    packed = np.frombuffer(llava.embeddings(source), "<u2").reshape(-1, table.shape[1])
    back = (packed.astype(np.uint32) << 16).view(np.float32)
    assert len(back) == len(table) + 3
    assert np.abs(back[: len(table)] - table).max() <= np.abs(table).max() * 2**-8
    assert not back[len(table) :].any()


def test_the_vocabulary_has_every_piece_and_the_images_tokens_last(files: tuple[Path, Path]) -> None:
    lines = llava.vocabulary(llava.Source.open(files[0], "llama")).splitlines()
    assert lines[:4] == ["430 0", "3 0 0", "400 401 402", "403"]
    assert len(lines) == 4 + 403
    last = [base64.b64decode(line.split()[0]).decode() for line in lines[-3:]]
    assert last == list(llava.IMAGE_TOKENS)


def test_a_converted_folder_is_whole_and_has_its_record(files: tuple[Path, Path], tmp_path: Path) -> None:
    made, record = tmp_path / "mnn-INT4/model", tmp_path / "mnn-INT4/model.json"
    convert(*files, library(tmp_path), made, "INT4", record)
    assert {path.name for path in made.iterdir()} == {
        *("llm.mnn", "llm.mnn.weight", "visual.mnn", "visual.mnn.weight", "embeddings_bf16.bin"),
        *("tokenizer.txt", "config.json", "llm_config.json"),
    }
    assert b"--weightQuantBits 4 --weightQuantBlock 64" in (made / "llm.mnn.weight").read_bytes()
    assert b"--fp16" in (made / "visual.mnn.weight").read_bytes()
    about = json.loads((made / "config.json").read_text())
    assert (about["vision_start"], about["vision_end"], about["image_pad"]) == (400, 401, 402)
    assert about["key_value_shape"] == [2, 1, 0, 2, 8]
    assert read_json(record)["weights_format"] == "mnn"
    # What Snakemake puts into the folders that it declares is no part of it.
    (made / ".snakemake_timestamp").touch()
    assert checked_folder(made) == read_json(record)["sha256"]


@pytest.mark.parametrize(
    ("said", "makes", "message"),
    [
        ("Reshape error: 6272 -> 25088", True, "Reshape error"),
        ("Can't open file:.__convert_external_data.bin", True, "Can't open file"),
        ("Converted Success!", False, "made no plain.mnn"),
    ],
)
def test_what_the_tool_does_wrong_is_told_though_it_exits_with_0(
    files: tuple[Path, Path], tmp_path: Path, said: str, makes: bool, message: str
) -> None:
    tool = library(tmp_path, said=said, makes=makes)
    with pytest.raises(WorkloadError, match=message):
        convert(*files, tool, tmp_path / "made", "INT8", tmp_path / "made.json")
    assert {path.name for path in tmp_path.iterdir()} == {"lib"}


def test_what_is_no_llava_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="of architecture clip: only llama"):
        convert(files[1], files[1], tmp_path, tmp_path / "made", "INT8", tmp_path / "made.json")
    with pytest.raises(ConfigError, match="no quantisation 'Q4_0'"):
        convert(*files, tmp_path, tmp_path / "made", "Q4_0", tmp_path / "made.json")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF no")
    with pytest.raises(IntegrityError, match="no GGUF file"):
        convert(tmp_path / "broken.gguf", files[1], tmp_path, tmp_path / "made", "INT8", tmp_path / "x.json")
