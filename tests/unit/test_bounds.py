"""What a model's tensors ask of a device, and the bounds that follow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_weights import (
    HEADS_WIDTH,
    INNER,
    KV,
    MLP,
    PATCHES,
    PEAKS,
    VISION,
    VOCABULARY,
    WIDTH,
    language,
    tensor,
    vision,
)

from pocketvlm.analyse import records
from pocketvlm.analyse.bounds import (
    BOUNDED,
    COLUMNS,
    Counts,
    Limit,
    cell_bounds,
    compute_bounds,
    limits,
    limits_of,
    token_counts,
)
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import write_json
from pocketvlm.weights.cost import UnknownShapeError, encode_operations, language_cost, type_bytes

COUNTS = Counts(text_prefill=10, image_prefill=PATCHES, decode=5)
LAYER = WIDTH * (HEADS_WIDTH + 2 * KV) + HEADS_WIDTH * WIDTH + 2 * WIDTH * INNER


def test_a_token_reads_all_weights_and_one_row_of_the_embedding() -> None:
    cost = language_cost(language())
    norms = 4 * WIDTH * 4
    assert cost.weight_bytes == 2 * (3 * LAYER + WIDTH * VOCABULARY) + norms + 2 * WIDTH
    assert cost.cache_bytes("f16", "f16") == 3 * 2 * KV * 2
    assert cost.cache_bytes("q8_0", "f32") == 3 * KV * (34 / 32 + 4)


def test_tied_embeddings_are_read_whole_and_once() -> None:
    tied, own = language_cost(language(tied=True)), language_cost(language())
    assert own.weight_bytes - tied.weight_bytes == 2 * WIDTH
    assert tied.head_elements == own.head_elements == WIDTH * VOCABULARY


def test_queries_keys_and_values_in_one_matrix_cost_the_same() -> None:
    assert language_cost(language(fused=True)) == language_cost(language())


def test_prefill_leaves_out_what_nobody_asks_for() -> None:
    cost = language_cost(language())
    scores = 4 * HEADS_WIDTH * 2 * (1 + 2 + 3 + 4)
    products = 2 * (4 * 2 * LAYER + 4 * 2 * KV * WIDTH)
    assert cost.prefill_operations(4, 0) == products + scores
    asked = 2 * (LAYER - 2 * KV * WIDTH + WIDTH * VOCABULARY) + 4 * HEADS_WIDTH * 4
    assert cost.prefill_operations(4, 1) == products + scores + asked


def test_encoding_leaves_out_the_last_block() -> None:
    positions = PATCHES + 1
    block = 4 * VISION * VISION + 2 * VISION * MLP
    scores = 2 * positions * positions * VISION
    patches = PATCHES * (14 * 14 * 3 * VISION + VISION * WIDTH + WIDTH * WIDTH)
    assert encode_operations(vision(), PATCHES) == 2 * (2 * (positions * block + scores) + patches)


def test_a_projector_that_shrinks_the_image_counts_the_fewest_positions() -> None:
    plain = encode_operations(vision(projector=(tensor("mm.model.norm.weight", 4),)), 4)
    for name, positions, shape in (
        ("mm.model.mlp.1.weight", PATCHES, (VISION, WIDTH)),
        ("mm.model.mb_block.1.block.0.0.weight", 4, (3, 3, WIDTH)),
        ("mm.model.mb_block.1.block.1.fc1.weight", 1, (WIDTH, 8)),
        ("mm.model.peg.0.weight", 4, (3, 3, WIDTH)),
        ("mm.model.mlp.1.bias", 0, (WIDTH,)),
    ):
        found = encode_operations(vision(projector=(tensor(name, *shape),)), 4)
        assert found - plain == 2 * positions * math.prod(shape), name


def test_llava_needs_what_is_known_of_it() -> None:
    """CLIP ViT-L/14 at 336 px is about 381 GFLOP a multiply-add being two; a 7B model reads its file once."""
    width, inner, blocks, positions = 1024, 4096, 23, 577
    per_block = positions * (4 * width * width + 2 * width * inner) + 2 * positions * positions * width
    tensors = [
        tensor("v.class_embd", width),
        tensor("v.position_embd.weight", width, positions),
        tensor("v.patch_embd.weight", 14, 14, 3, width),
    ]
    for block in range(blocks):
        parts = [tensor(f"v.blk.{block}.attn_{part}.weight", width, width) for part in ("q", "k", "v", "out")]
        ends = [tensor(f"v.blk.{block}.ffn_up.weight", width, inner)]
        tensors += [*parts, *ends, tensor(f"v.blk.{block}.ffn_down.weight", inner, width)]
    found = encode_operations({"tensors": tensors}, 576)
    assert found == 2 * (22 * per_block + 576 * 14 * 14 * 3 * width)
    assert 330e9 < found < 381e9


@pytest.mark.parametrize(
    "record",
    [
        {"tensors": []},
        {"tensors": [tensor("token_embd.weight", 4, 4)]},
        {"tensors": [tensor("token_embd.weight", 4, 4), tensor("blk.0.attn_q.weight", 4, 4)]},
        {"tensors": [tensor("token_embd.weight", 4, 4), tensor("blk.0.ffn_up_exps.weight", 4, 4, 8)]},
        {"tensors": [tensor("token_embd.weight", 4, 4), tensor("blk.1.attn_output.weight", 4, 4)]},
    ],
)
def test_another_architecture_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(UnknownShapeError):
        language_cost(record)
    with pytest.raises(UnknownShapeError):
        encode_operations(record, 4)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnknownShapeError, match="q9_9"):
        type_bytes("q9_9")


def bounds(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    given = {
        "peaks": PEAKS, "backend": "cpu", "records": {"model": language(), "mmproj": vision()},
        "cache_types": ("f16", "f16"), "counts": COUNTS, "margin_percent": 5, **changes,
    }  # fmt: skip
    rows = cell_bounds("c", **given)
    assert [(r["phase"], r["metric"], r["unit"], r["kind"]) for r in rows] == list(BOUNDED)
    for row in rows:
        assert tuple(row) == COLUMNS
        assert bool(row["bound"]) != bool(row["reason"]) and bool(row["bound"]) == bool(row["inputs"])
    return {(row["phase"], row["metric"]): row for row in rows}


def test_decode_is_bandwidth_over_bytes_a_token() -> None:
    cost = language_cost(language())
    # Four steps after the first token see 26, 27, 28 and 29 positions.
    needed = cost.weight_bytes + 27.5 * cost.cache_bytes("f16", "f16")
    found = bounds()
    assert float(found["decode", "tokens_per_second"]["bound"]) == pytest.approx(1e9 / needed)
    assert float(found["decode", "duration"]["bound"]) == pytest.approx(4e3 * needed / 1e9)
    assert float(found["decode", "tokens_per_second"]["margin_percent"]) == pytest.approx(5)


def test_prefill_and_encoding_are_operations_over_the_peak() -> None:
    found, cost = bounds(), language_cost(language())
    image = cost.prefill_operations(PATCHES, 0) / 1e10
    assert float(found["image_prefill", "duration"]["bound"]) == pytest.approx(1e3 * image)
    assert float(found["image_prefill", "tokens_per_second"]["bound"]) == pytest.approx(PATCHES / image)
    text = cost.prefill_operations(10, 1) / 1e10
    assert float(found["text_prefill", "duration"]["bound"]) == pytest.approx(1e3 * text)
    encode = encode_operations(vision(), PATCHES) / 1e10
    assert float(found["image_encode", "duration"]["bound"]) == pytest.approx(1e3 * encode)


def test_a_model_in_the_cache_has_no_bound_of_memory_and_a_larger_one_a_wider_margin() -> None:
    needed = language_cost(language()).weight_bytes
    small = bounds(peaks={**PEAKS, "cache_bytes": 2 * needed})
    assert "fit into the processor's cache" in small["decode", "tokens_per_second"]["reason"]
    assert small["image_encode", "duration"]["bound"]
    half = bounds(peaks={**PEAKS, "cache_bytes": needed // 2})["decode", "duration"]
    assert 100 < float(half["margin_percent"]) < 111 and "may spare" in half["inputs"]
    assert half["bound"] == bounds()["decode", "duration"]["bound"]


@pytest.mark.parametrize(
    ("changes", "phases", "words"),
    [
        ({"backend": "vulkan"}, "all", "measured on the CPU"),
        ({"peaks": {**PEAKS, "operations_per_s": None, "reason": "not quoted"}}, "computed", "not quoted"),
        ({"counts": Counts(10, None, 5)}, "image", "how many tokens image_prefill"),
        ({"counts": Counts(10, PATCHES, 1)}, "decode", "single token"),
        ({"cache_types": None}, "decode", "types of cached"),
        ({"records": {"model": {"tensors": []}, "mmproj": vision()}}, "language", "no token embedding"),
    ],
)
def test_a_bound_that_cannot_be_had_says_why(changes: dict[str, Any], phases: str, words: str) -> None:
    expected = {
        "all": {phase for phase, *_ in BOUNDED},
        "computed": {"image_encode", "text_prefill", "image_prefill"},
        "image": {"image_encode", "image_prefill", "decode"},
        "language": {"text_prefill", "image_prefill", "decode"},
        "decode": {"decode"},
    }[phases]
    found = bounds(**changes)
    without = {phase for (phase, _), row in found.items() if not row["bound"]}
    assert without == expected
    assert all(words in row["reason"] for (phase, _), row in found.items() if phase in expected)


def test_quoted_peaks_bound_every_backend() -> None:
    peaks = {**PEAKS, "source": "quoted: a data sheet"}
    assert all(row["bound"] for row in bounds(peaks=peaks, backend="opencl").values())


def test_beyond_a_bound_is_told_in_the_direction_of_the_metric() -> None:
    rate, time = Limit(100, 0.05, "bandwidth", lower=False), Limit(100, 0.05, "bandwidth", lower=True)
    assert rate.beyond(104) is None and rate.beyond(50) is None
    assert rate.beyond(150) == pytest.approx(0.5)
    assert time.beyond(96) is None and time.beyond(1000) is None
    assert time.beyond(50) == pytest.approx(1.0)
    assert rate.fraction(25) == time.fraction(400) == 0.25


RUNS = {"k/00": (10.0, 16.0, 6.0), "k/01": (10.0, 16.0, 5.0), "i/00": (1.0, 1.0, 1.0)}


def write_inputs(folder: Path) -> dict[str, Any]:
    rows = [
        {"run": run, "phase": phase, "metric": "tokens", "value": value, "unit": "1", "source": "framework",
         "lower_is_better": None, "samples": None, "reason": "" if value is not None else "why"}
        for run, tokens in RUNS.items()
        for phase, value in zip(("text_prefill", "image_prefill", "decode"), tokens, strict=True)
    ]  # fmt: skip
    records.write(folder / "metrics.parquet", "metrics", records.table("metrics", rows))
    runs = [{"run": "k/00", "cell": "c"}, {"run": "k/01", "cell": "c"}, {"run": "i/00", "cell": None}]
    write_json(folder / "block.json", {"runs": runs})
    write_json(folder / "peaks.json", PEAKS)
    write_json(folder / "model.json", language())
    write_json(folder / "mmproj.json", vision())
    cell = {"cell": "c", "device": "bench", "backend": "cpu", "adapter": "llamacpp", "unavailable": None}
    absent = {**cell, "cell": "d", "adapter": None, "unavailable": "no such tool"}
    other = {**cell, "cell": "e", "device": "else"}
    write_json(folder / "cells.json", {"cells": [cell, absent, other]})
    weights = {"model": folder / "model.json", "mmproj": folder / "mmproj.json"}
    return {
        "cells": folder / "cells.json", "device": "bench", "metrics": folder / "metrics.parquet",
        "block": folder / "block.json", "peaks": folder / "peaks.json", "margin_percent": 5,
        "made_of": {"c": {"weights": weights, "settings": {"threads": 2}}},
        "destination": folder / "bounds.csv",
    }  # fmt: skip


def test_the_table_has_every_cell_of_the_device(tmp_path: Path) -> None:
    given = write_inputs(tmp_path)
    compute_bounds(**given)
    found = limits([tmp_path / "bounds.csv"])
    assert {cell for cell, _, _ in found} == {"c"}
    assert len(found) == len(BOUNDED)
    expected = limits_of(bounds().values())
    for (_, phase, metric), limit in found.items():
        assert limit == expected["c", phase, metric]
    assert (tmp_path / "bounds.csv").read_text().count("no such tool") == len(BOUNDED)


def test_counts_are_the_fewest_of_the_runs(tmp_path: Path) -> None:
    given = write_inputs(tmp_path)
    assert token_counts(given["metrics"], given["block"]) == {"c": COUNTS}


def test_what_is_no_record_and_no_table_is_named(tmp_path: Path) -> None:
    given = write_inputs(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"model\.json"):
        compute_bounds(**given)
    with pytest.raises(IntegrityError, match=r"metrics\.parquet|table of bounds"):
        limits([tmp_path / "cells.json"])
