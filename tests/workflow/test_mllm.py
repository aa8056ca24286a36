"""mllm through the whole workflow, by a stand-in that is built from a source tree with a plain command.

Both generations to the tables, weights that nobody gives, and weights that it cannot read before it exits
with 0.
"""

from __future__ import annotations

import pytest

from tests.project import checkout
from tests.standin_project import (
    TOKENS,
    Table,
    contradictions,
    experiment,
    failed,
    give,
    sources,
    tables,
    weights_file,
)

from .conftest import Project

pytestmark = pytest.mark.slow

FRAMEWORK = "mllm-stand-in"
LOAD, PREFILL, TOKEN, TEXT = 300, 400, 40, 24
WEIGHTS = f"mllm stand-in\nload_ms {LOAD}\nprefill_ms {PREFILL}\ntoken_ms {TOKEN}\ntext_tokens {TEXT}\n"


def version(source: str, generation: str) -> dict[str, object]:
    words = [
        *("--generation", generation, "--model", "{model}", "--vocab", "{vocabulary}", "--image", "{image}"),
        *(
            "--prompt",
            "{prompt}",
            "--tokens",
            "{max_tokens}",
            "--limits",
            "{context}",
            "--thread",
            "{threads}",
        ),
    ]
    prompt = {"first": "<image>\nUSER: {text}\nASSISTANT:"}
    quirks = {"arguments": words, "prompt": prompt, "marker": "<image>", "ignore_eos": []}
    return {"source": {"kind": "directory", "path": source}, "quirks": quirks}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Measured once: generations 1 and 2, and a quantisation that nobody gives."""
    project = checkout(tmp_path_factory.mktemp("mllm"))
    source = sources(project, "mllm")
    vocabulary = weights_file(project, "vocab.mllm", "words\n")
    formats = {
        "Q4_K": {"model": weights_file(project, "good.mllm", WEIGHTS), "vocabulary": vocabulary},
        "Q6_K": {"model": weights_file(project, "bad.mllm", "no such thing\n"), "vocabulary": vocabulary},
    }
    build = {
        "tool": "command",
        "steps": [["{cc}", "{cflags}", "-o", "{build}/mllm", "{source}/mllm.c", "{ldflags}"]],
        "collect": {"bin/mllm": "mllm"},
    }
    table = {
        FRAMEWORK: {
            "adapter": "mllm",
            "versions": {"1": version(source, "1"), "2": version(source, "2")},
            "build": build,
            "backends": {"cpu": {}},
        }
    }
    give(project, table, {"mllm": formats})
    experiment(
        project, "standin", (FRAMEWORK, "1", "Q4_K"), (FRAMEWORK, "2", "Q4_K"), (FRAMEWORK, "2", "Q5_K")
    )
    experiment(project, "unreadable", (FRAMEWORK, "1", "Q6_K"), absent="refuse")
    done = project.snakemake(*tables("standin"), experiment="standin")
    assert done.returncode == 0, done.stdout[-4000:]
    return project


def test_both_generations_reach_the_tables_and_what_is_not_seen_is_not_there(project: Project) -> None:
    table = Table(project, "standin")
    lacking = [row for row in table.rows if row["quantisation"] == "Q5_K"]
    assert lacking and all("gives no mllm weights at Q5_K" in row["gate"] for row in lacking)
    table.rows = [row for row in table.rows if row["quantisation"] == "Q4_K"]
    for generation in ("1", "2"):

        def median(phase: str, metric: str, generation: str = generation) -> float:
            return table.median(FRAMEWORK, generation, phase, metric)

        def missing(phase: str, metric: str, generation: str = generation) -> str:
            return table.missing(FRAMEWORK, generation, phase, metric)

        assert median("run", "reported.prompt_eval") == pytest.approx(PREFILL, rel=0.2)
        assert median("decode", "reported.decode_step") == pytest.approx(TOKEN, rel=0.2)
        assert median("decode", "duration") == pytest.approx((TOKENS - 1) * TOKEN, rel=0.2)
        assert median("decode", "tokens") == TOKENS
        assert median("decode", "tokens_per_second") == pytest.approx(1e3 / TOKEN, rel=0.2)
        assert LOAD + PREFILL < median("run", "time_to_first_token") < 1.5 * (LOAD + PREFILL)
        for phase in ("text_prefill", "image_encode", "image_prefill"):
            assert "in one piece" in missing(phase, "duration")
        assert "in one piece" in missing("text_prefill", "tokens_per_second")
    assert table.median(FRAMEWORK, "1", "text_prefill", "tokens") == TEXT - 1
    assert table.median(FRAMEWORK, "1", "image_prefill", "tokens") == 576
    assert table.median(FRAMEWORK, "1", "load", "reported.load") == pytest.approx(LOAD, rel=0.2)
    assert "decoded the image" in table.missing(FRAMEWORK, "1", "load", "duration")
    assert table.median(FRAMEWORK, "2", "load", "duration") == pytest.approx(LOAD, rel=0.3)
    assert table.median(FRAMEWORK, "2", "decode", "agreement.decode") == pytest.approx(0, abs=5)
    assert contradictions(project, "standin") == []


def test_a_run_that_cannot_read_its_weights_and_exits_with_0_counts_nothing(project: Project) -> None:
    said = failed(project, "unreadable")
    assert "exited with 0 after it had said: Mmap: magic number error" in said
