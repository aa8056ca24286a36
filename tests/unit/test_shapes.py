"""Shapes without weights: structure, sizes, pinned bytes, finite values of their size, printable answers."""

from __future__ import annotations

import hashlib
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import yaml

from pocketvlm.config.schema import validate
from pocketvlm.errors import ConfigError, ProvisionError
from pocketvlm.weights import shapes
from pocketvlm.weights.blocks import Type, layout, random_blocks
from tests.tiny_shapes import CLIP, IMAGE_TOKENS, LLAMA, PHI2, SHAPES, changed

ROOT = Path(__file__).parents[2]
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
REAL = {name: entry for name, entry in MODELS.items() if "shape" in entry}
PARTS = ["model-Q4_0", "model-Q4_K_M", "model-Q8_0", "model-F16", "mmproj-f16"]
# Pinned: a change here means that every pinned shape changes, too.
TINY_SHA256 = {
    ("llava", "model-Q4_0"): "ebc2bd34c3423ff221e27f384a34cfe4e41665884a29bb7f52bf998581250139",
    ("llava", "model-Q4_K_M"): "6a2522b305e12f8daf3dbbf28a52bdaf753c549e34fe5e27a64e26a4ab9efe1c",
    ("llava", "model-Q8_0"): "9c0f2e3546ec881ad541269a45b988c35127a9793f123aeb0f096299441b5363",
    ("llava", "mmproj-f16"): "482acdf0dac406b5b35f337da4fa1de93ce8124472e2aaf784eedb599caca504",
    ("mobilevlm", "mmproj-f16"): "d245b7eaf8744cc10da000f23a3b4f4d6bd8b453716bca850a14e3ef4144c3cd",
    ("mobilevlm-v2", "mmproj-f16"): "ae7f804113228e9d1e4ec53261f3ec8be2fa8baa83bcca2ccc55160bdf10a82e",
    ("imp", "model-Q4_0"): "d2da9a61c042eed206a13a23319baa0f5cf00201aae02927a41ee20fb0ac7f08",
    ("imp", "mmproj-f16"): "c157ecc3abaef17145d2663e454bf485313f929b91a17ea471732891f2f5da7d",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("shapes")
    written = {}
    for name, entry in SHAPES.items():
        shape = shapes.shape_from_config(name, entry)
        for part in PARTS:
            written[name, part] = folder / name / f"{part}.gguf"
            shapes.write(shape, part, written[name, part])
        assert sorted(path.name for path in (folder / name).iterdir()) == sorted(f"{p}.gguf" for p in PARTS)
    return written


def values_of(tensor: Any) -> np.ndarray[Any, Any]:
    return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float64)


def metadata(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


@pytest.mark.parametrize(("name", "part"), TINY_SHA256)
def test_the_bytes_are_pinned(files: dict[tuple[str, str], Path], name: str, part: str) -> None:
    found = hashlib.sha256(files[name, part].read_bytes()).hexdigest()
    assert found == TINY_SHA256[name, part]


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q8_0, Type.Q6_K, Type.Q4_K])
def test_no_byte_depends_on_how_much_is_made_at_a_time(kind: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> bytes:
        chunks = random_blocks(np.random.PCG64(5), kind, 1001, -6, [(3, 9), (500, 990)])
        return b"".join(chunk.tobytes() for chunk in chunks)

    whole = made()
    assert len(whole) == 1001 * layout(kind).bytes
    monkeypatch.setattr("pocketvlm.weights.blocks.CHUNK_BYTES", 7 * layout(kind).bytes)
    assert made() == whole


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("part", PARTS)
def test_every_value_is_finite_and_of_the_intended_size(
    files: dict[tuple[str, str], Path], name: str, part: str
) -> None:
    wanted = {
        tensor.name: tensor for tensor in shapes.tensors(shapes.shape_from_config(name, SHAPES[name]), part)
    }
    for tensor in gguf.GGUFReader(files[name, part]).tensors:
        values = values_of(tensor)
        assert np.isfinite(values).all(), tensor.name
        assert np.abs(values).max() < 4.0, tensor.name
        if wanted[tensor.name].fill != "random" or wanted[tensor.name].silent or values.size < 10_000:
            continue
        assert 0.8 < np.sqrt((values**2).mean()) / 2.0 ** wanted[tensor.name].exponent < 1.0, tensor.name
        # Half a step of mean would be 0.1 of the size and add up over the columns.
        assert abs(values.mean()) < 6 * values.std() / np.sqrt(values.size / 32), tensor.name


def test_scales_too_small_for_normal_numbers_stay_exact() -> None:
    # Below 2**-14 a float16 loses bits: the minimum must still be 7.5 scales. -10 is the least exponent used.
    (blocks,) = random_blocks(np.random.PCG64(5), Type.Q4_K, 64, -10)
    scale, minimum = blocks.view("<f2")[:, 0].astype(float), blocks.view("<f2")[:, 1].astype(float)
    assert (scale > 0).all()
    assert (minimum == 7.5 * scale).all()
    assert scale.max() < 2.0**-14
    for name, entry in REAL.items():
        shape = shapes.shape_from_config(name, entry["shape"])
        assert min(tensor.exponent for tensor in shapes.tensors(shape, "model-Q4_K_M")) >= -10


@pytest.mark.parametrize("name", ["llava", "imp"])
@pytest.mark.parametrize("part", PARTS[:4])
def test_what_cannot_be_printed_can_never_be_the_answer(
    files: dict[tuple[str, str], Path], name: str, part: str
) -> None:
    reader = gguf.GGUFReader(files[name, part])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    rows = list(values_of(tensors["output.weight"]).any(axis=1))
    known = metadata(files[name, part])
    tokens, kinds = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.token_type"]
    assert len(tokens) == len(set(tokens)) == len(kinds) == len(rows)
    for token, kind, answers in zip(tokens, kinds, rows, strict=True):
        text = token.replace("\u2581", " ").replace("\u0120", " ")
        printable = kind == 1 and text.isascii() and text.isprintable() and bool(text.strip())
        assert answers == printable, token
    if "output.bias" in tensors:
        assert not values_of(tensors["output.bias"]).any()


def test_the_tokens_of_a_gpt2_tokenizer_are_laid_out_as_phi2s(files: dict[tuple[str, str], Path]) -> None:
    known = metadata(files["imp", "model-Q4_0"])
    tokens = known["tokenizer.ggml.tokens"]
    assert tokens[:3] == ["!", '"', "#"]
    assert tokens[220] == "\u0120"
    assert (known["tokenizer.ggml.model"], known["tokenizer.ggml.pre"]) == ("gpt2", "phi-2")
    end = known["tokenizer.ggml.eos_token_id"]
    assert tokens[end] == "<|endoftext|>"
    assert PHI2["vocabulary"] - end == 51200 - 50256
    for merge in known["tokenizer.ggml.merges"]:
        assert merge.replace(" ", "") in tokens


def test_a_language_model_has_the_tensors_of_its_architecture(files: dict[tuple[str, str], Path]) -> None:
    def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
        reader = gguf.GGUFReader(files[name, "model-Q4_0"])
        return {tensor.name: tuple(int(n) for n in tensor.shape) for tensor in reader.tensors}

    llama = shapes_of("llava")
    assert len(llama) == 3 + 8 * 9
    assert llama["blk.7.ffn_gate.weight"] == (256, 512)
    assert llama["output.weight"] == (256, LLAMA["vocabulary"])
    phi2 = shapes_of("imp")
    assert len(phi2) == 5 + 8 * (2 + 6 * 2)
    assert "blk.0.ffn_gate.weight" not in phi2
    assert phi2["blk.0.attn_v.bias"] == (256,)
    assert phi2["output.bias"] == (PHI2["vocabulary"],)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava", {"mm.0.weight": (64, 256), "mm.2.weight": (256, 256)}),
        (
            "mobilevlm",
            {
                "mm.model.mlp.3.weight": (256, 256),
                "mm.model.mb_block.1.block.0.0.weight": (3, 3, 256),
                "mm.model.mb_block.2.block.1.fc1.weight": (256, 64),
                "mm.model.mb_block.2.block.1.fc2.bias": (256,),
                "mm.model.mb_block.2.block.2.0.weight": (256, 256),
            },
        ),
        ("mobilevlm-v2", {"mm.model.mlp.2.weight": (256, 256), "mm.model.peg.0.weight": (3, 3, 256)}),
        ("imp", {"mm.0.weight": (96, 256), "v.patch_embd.bias": (96,), "v.position_embd.weight": (96, 144)}),
    ],
)
def test_a_tower_has_the_tensors_of_its_projector(
    files: dict[tuple[str, str], Path], name: str, expected: dict[str, tuple[int, ...]]
) -> None:
    found = {
        t.name: tuple(int(n) for n in t.shape) for t in gguf.GGUFReader(files[name, "mmproj-f16"]).tensors
    }
    assert {key: found.get(key) for key in expected} == expected
    siglip = name == "imp"
    assert ("v.class_embd" in found, "v.pre_ln.weight" in found) == (not siglip, not siglip)
    assert not any(key.startswith("v.post_ln") for key in found)
    known = metadata(files[name, "mmproj-f16"])
    assert known["clip.projector_type"] == SHAPES[name]["projector"]
    assert known["clip.use_gelu"] == siglip
    assert known.get("clip.vision.feature_layer") == ([2] if siglip else None)


def test_image_tokens_are_counted_as_llama_cpp_counts_them() -> None:
    for name, expected in IMAGE_TOKENS.items():
        assert shapes.shape_from_config(name, SHAPES[name]).image_tokens == expected


# Parameters of LLaMA-7B and Phi-2 by their dimensions; bytes of the files on the hub as its listings print
# them, to three digits. Sources: docs/method.md.
@pytest.mark.parametrize(
    ("name", "part", "parameters", "published", "unit"),
    [
        ("shape-llava-1.5-7b", "model-F16", 6_738_415_616, "13.5", 1e9),
        ("shape-llava-1.5-7b", "model-Q4_0", 6_738_415_616, "3.83", 1e9),
        ("shape-llava-1.5-7b", "model-Q4_K_M", 6_738_415_616, "4.08", 1e9),
        ("shape-llava-1.5-7b", "model-Q8_0", 6_738_415_616, "7.16", 1e9),
        ("shape-llava-1.5-7b", "mmproj-f16", None, "624", 1e6),
        ("shape-mobilevlm-3b", "model-F16", None, "5.4", 1e9),
        ("shape-mobilevlm-3b", "model-Q4_K_M", None, "1.64", 1e9),
        ("shape-mobilevlm-3b", "model-Q8_0", None, "2.87", 1e9),
        ("shape-mobilevlm-3b", "mmproj-f16", None, "640", 1e6),
        ("shape-imp-v1.5-3b", "model-Q4_0", 2_779_683_840, "1.6", 1e9),
        ("shape-imp-v1.5-3b", "model-Q8_0", 2_779_683_840, "2.96", 1e9),
    ],
)
def test_real_shapes_have_the_published_sizes(
    name: str, part: str, parameters: int | None, published: str, unit: float
) -> None:
    tensors = shapes.tensors(shapes.shape_from_config(name, REAL[name]["shape"]), part)
    if parameters:
        assert sum(tensor.elements for tensor in tensors) == parameters
    # The vocabulary before the tensors takes 0.02 to 2 MB.
    size = sum(tensor.bytes for tensor in tensors) / unit
    assert float(f"{size:.3g}") == float(published)


@pytest.mark.parametrize(
    ("name", "part", "language", "published", "header"),
    [
        # MobileVLM-1.7B, whose files' sizes are known to the byte: 24 layers, width 2048, feed-forward 5632.
        ("shape-mobilevlm-3b", "model-Q4_K_M", (24, 2048, 5632, 16, 128, 32000), 834_055_776, 900_000),
        ("shape-mobilevlm-3b", "mmproj-f16", (24, 2048, 5632, 16, 128, 32000), 620_384_896, 60_000),
        # Phi-2 with 50296 words, likewise.
        ("shape-imp-v1.5-3b", "model-Q4_0", (32, 2560, 10240, 32, 32, 50296), 1_599_249_216, 2_000_000),
        ("shape-imp-v1.5-3b", "model-Q4_K_M", (32, 2560, 10240, 32, 32, 50296), 1_734_417_216, 2_000_000),
    ],
)
def test_sizes_known_to_the_byte_leave_only_the_header(
    name: str, part: str, language: tuple[int, ...], published: int, header: int
) -> None:
    entry = REAL[name]["shape"]
    layers, width, feed_forward, heads, rope, vocabulary = language
    changes = {
        "layers": layers,
        "width": width,
        "feed_forward": feed_forward,
        "heads": heads,
        "kv_heads": heads,
    }
    sizes = {**entry["language"], **changes, "rope_dimensions": rope, "vocabulary": vocabulary}
    shape = shapes.shape_from_config("smaller", {**entry, "language": sizes})
    left = published - sum(tensor.bytes for tensor in shapes.tensors(shape, part))
    assert 0 < left < header


@pytest.mark.parametrize("name", REAL)
def test_the_catalogue_is_consistent(name: str) -> None:
    shapes.check({name: REAL[name]})
    assert {"Q4_0", "Q8_0"} <= set(REAL[name]["quantisations"])
    expected = {"shape-llava-1.5-7b": 576, "shape-imp-v1.5-3b": 729}.get(name, 144)
    assert shapes.shape_from_config(name, REAL[name]["shape"]).image_tokens == expected


def test_a_part_without_a_pin_is_refused_before_anything_is_made() -> None:
    name, entry = next(iter(REAL.items()))
    pins = {part: value for part, value in entry["sha256"].items() if part != "model-Q8_0"}
    with pytest.raises(ConfigError, match=r"model-Q8_0 of .* has no pinned hash"):
        shapes.check({name: {**entry, "sha256": pins}})


def test_a_quantisation_that_cannot_be_written_is_refused() -> None:
    name, entry = next(iter(REAL.items()))
    with pytest.raises(ConfigError, match=r"cannot be written as 'model-Q5_K_M'.*Use one of: F16, Q4_0"):
        shapes.check({name: {**entry, "quantisations": ["Q5_K_M"]}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language__width": 48}, "multiples of 32"),
        ({"language__heads": 3}, "multiple of language.heads"),
        ({"language__kv_heads": 3}, "multiple of language.kv_heads"),
        ({"language__rope_dimensions": 7}, "rope_dimensions is odd"),
        ({"language__rope_dimensions": 66}, "more than a head has"),
        ({"language__vocabulary": 3000}, "language.vocabulary is 3000: it must lie between"),
        ({"language__vocabulary": 10**7}, "language.vocabulary is"),
        ({"vision__heads": 3}, "multiple of vision.heads"),
        ({"vision__image_size": 1}, "less than vision.patch_size"),
        ({"vision__layers": 1}, "at least 2"),
        ({"vision__run": 4}, "vision.run is more than vision.layers"),
        ({"vision__patch_size": 4}, "takes 24 patches a side, these are 12"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        shapes.shape_from_config("tiny", changed("mobilevlm", **change))
    assert caught.value.where == "config/models.yaml, tiny: shape"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry["shape"].pop("seed"), "the key 'seed' is missing"),
        (lambda entry: entry["shape"]["language"].update(depth=3), "the key 'depth' is not known"),
        (lambda entry: entry["shape"]["language"].update(architecture="mamba"), "It should be llama or phi2"),
        (lambda entry: entry["shape"].update(projector="linear"), "It should be mlp, ldp or ldpv2"),
        (lambda entry: entry["shape"]["vision"].update(layers=0), "layers"),
        (lambda entry: entry.pop("sha256"), "the key 'sha256' is missing"),
        (lambda entry: entry["sha256"].pop("mmproj"), "the key 'mmproj' is missing"),
        (lambda entry: entry.update(preset={}), "does not go together with its neighbours"),
        (lambda entry: entry["sha256"].update(model="0" * 64), "does not go together with its neighbours"),
    ],
)
def test_the_schema_refuses_what_is_no_shape(change: Any, message: str) -> None:
    entry = yaml.safe_load(yaml.safe_dump(REAL["shape-llava-1.5-7b"]))
    validate({"some": entry}, "models", where="models.yaml")
    change(entry)
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate({"some": entry}, "models", where="models.yaml")


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**10, 10**10, 10**6))
    with pytest.raises(ProvisionError, match=r"takes 0.0 GB and 0.0 GB are free.*Make room there"):
        shapes.write(shapes.shape_from_config("tiny", SHAPES["llava"]), "model-Q4_0", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.write(
            shapes.shape_from_config("tiny", SHAPES["llava"]), "model-Q4_0", tmp_path / "model.gguf", stop
        )
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left, others = tmp_path / ".model.gguf.draft-abc", tmp_path / ".other.gguf.draft-abc"
    for folder in (left, others):
        folder.mkdir()
        (folder / "weights.gguf").write_bytes(b"part")
    shape = shapes.shape_from_config("tiny", SHAPES["llava"])
    shapes.write(shape, "mmproj-f16", tmp_path / "model.gguf")
    assert sorted(tmp_path.iterdir()) == [others, tmp_path / "model.gguf"]


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    shape = shapes.shape_from_config("tiny", {**SHAPES["llava"], "vision": CLIP})
    shapes.write(shape, "mmproj-f16", tmp_path / "mmproj.gguf", lambda *state: told.append(state))
    assert told[-1][0] == told[-1][1] == sum(t.bytes for t in shapes.tensors(shape, "mmproj-f16"))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
