"""Synthetic weights: the same bytes everywhere, readable as GGUF, finite, with printable pieces."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import yaml

from pocketvlm.errors import ConfigError
from pocketvlm.weights.synthetic import Preset, preset_from_config, write

ROOT = Path(__file__).parents[2]
MODELS = {
    name: entry
    for name, entry in yaml.safe_load((ROOT / "config/models.yaml").read_text()).items()
    if "preset" in entry
}

TINY: dict[str, Any] = {
    "seed": 7,
    "words": ["cup", "table"],
    "language": {
        "layers": 2,
        "width": 64,
        "feed_forward": 96,
        "heads": 4,
        "kv_heads": 2,
        "context": 128,
        "vocabulary": 600,
    },
    "vision": {
        "layers": 2,
        "width": 32,
        "feed_forward": 64,
        "heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
}
# Pinned: a change here means that every pinned model changes, too.
TINY_SHA256 = {
    "model": "9edd868def9a9c510c89860b0eb7ff9795e7f8f86eab583c34feeba5fe02a71e",
    "mmproj": "b3e328c00bdb4ae8bf13da18f3bef7546935d037083ff37053f2032c61a06432",
}


@pytest.fixture(scope="module")
def tiny() -> Preset:
    return preset_from_config("tiny", TINY)


@pytest.fixture(scope="module")
def files(tiny: Preset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    for role in ("model", "mmproj"):
        write(tiny, role, folder / "deep" / f"{role}.gguf")  # type: ignore[arg-type]
    assert sorted(path.name for path in (folder / "deep").iterdir()) == ["mmproj.gguf", "model.gguf"]
    return {role: folder / "deep" / f"{role}.gguf" for role in ("model", "mmproj")}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("role", ["model", "mmproj"])
def test_the_bytes_are_pinned(files: dict[str, Path], role: str) -> None:
    assert sha256(files[role]) == TINY_SHA256[role]


def test_another_seed_gives_other_bytes(tiny: Preset, files: dict[str, Path], tmp_path: Path) -> None:
    write(preset_from_config("tiny", {**TINY, "seed": 8}), "mmproj", tmp_path / "other.gguf")
    other, first = tmp_path / "other.gguf", files["mmproj"]
    assert sha256(other) != sha256(first)
    assert other.stat().st_size == first.stat().st_size


@pytest.mark.parametrize("role", ["model", "mmproj"])
def test_every_value_is_finite_and_of_the_intended_size(files: dict[str, Path], role: str) -> None:
    for tensor in gguf.GGUFReader(files[role]).tensors:
        values = np.asarray(tensor.data, dtype=np.float64)
        assert np.isfinite(values).all(), tensor.name
        assert np.abs(values).max() < 2.0, tensor.name
        if tensor.name.startswith("blk.") and tensor.name.endswith(("_q.weight", "_up.weight")):
            assert 0.5 < values.std() * np.sqrt(values.shape[-1]) < 1.5
            assert abs(values.mean()) < 4 * values.std() / np.sqrt(values.size)


def test_the_language_model_has_llamas_tensors(files: dict[str, Path]) -> None:
    shapes = {tensor.name: tuple(tensor.shape) for tensor in gguf.GGUFReader(files["model"]).tensors}
    # GGUF lists the fastest dimension first.
    assert shapes["token_embd.weight"] == (64, 600)
    assert shapes["output.weight"] == (64, 600)
    assert shapes["blk.1.attn_k.weight"] == (64, 32)
    assert shapes["blk.0.ffn_down.weight"] == (96, 64)
    assert len(shapes) == 3 + 2 * 9


def test_the_tower_has_clips_tensors_and_two_projector_layers(files: dict[str, Path]) -> None:
    reader = gguf.GGUFReader(files["mmproj"])
    shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
    assert shapes["v.patch_embd.weight"] == (14, 14, 3, 32)
    assert shapes["v.position_embd.weight"] == (32, 5)
    assert (shapes["mm.0.weight"], shapes["mm.2.weight"]) == ((32, 64), (64, 64))
    field = reader.get_field("clip.projector_type")
    assert field is not None
    assert field.contents() == "mlp"


def test_pieces_are_printable_unique_and_not_empty(files: dict[str, Path]) -> None:
    field = gguf.GGUFReader(files["model"]).get_field("tokenizer.ggml.tokens")
    assert field is not None
    pieces = field.contents()
    assert len(pieces) == len(set(pieces)) == 600
    for piece in pieces[259:]:
        text = piece.replace("\u2581", " ")
        assert text
        assert text.isascii() and text.isprintable(), piece
    assert "\u2581table" in pieces
    assert "\u2581tabl" in pieces


def test_control_and_byte_tokens_can_never_be_the_answer(files: dict[str, Path]) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(files["model"]).tensors}
    rows = np.asarray(tensors["output.weight"].data)
    assert not rows[:259].any()
    assert rows[259:].any(axis=1).all()


def test_nothing_appears_when_writing_fails(
    tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_padding", full)
    with pytest.raises(OSError, match="No space left"):
        write(tiny, "model", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(name for name in MODELS if "preset" in MODELS[name]))
def test_the_presets_of_the_catalogue_are_consistent(name: str) -> None:
    preset = preset_from_config(name, MODELS[name]["preset"])
    assert preset.language.width % 64 == 0
    assert preset.vision.tokens >= 100


@pytest.mark.slow
def test_the_pins_of_the_catalogue_are_right(tmp_path: Path) -> None:
    name = "synthetic-llava-nano"
    preset = preset_from_config(name, MODELS[name]["preset"])
    for role in ("model", "mmproj"):
        write(preset, role, tmp_path / role)  # type: ignore[arg-type]
        assert sha256(tmp_path / role) == MODELS[name]["sha256"][role]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("language", "layers"), 0, "language.layers of model tiny is 0"),
        (("language", "layers"), "2", "language.layers"),
        (("language", "width"), 48, "multiples of 32"),
        (("language", "heads"), 5, "multiple of language.heads"),
        (("language", "kv_heads"), 3, "multiple of language.kv_heads"),
        (("language", "vocabulary"), 300, "language.vocabulary must lie between"),
        (("language", "vocabulary"), 10**9, "language.vocabulary must lie between"),
        (("language", "depth"), 2, "missing or unknown keys: depth"),
        (("vision", "image_size"), 30, "multiple of vision.patch_size"),
        (("vision", "layers"), 1, "at least 2"),
        (("words",), ["cup", True], "words of model tiny has True"),
        (("words",), ["two words"], "no word of ASCII letters"),
        (("seed",), None, "seed of model tiny"),
    ],
)
def test_a_wrong_preset_names_the_key(path: tuple[str, ...], value: Any, message: str) -> None:
    entry = copy.deepcopy(TINY)
    inner = entry
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        preset_from_config("tiny", entry)
