"""MLC-LLM and MLC-Imp through the whole workflow, by a stand-in given as binaries: three forms of statistics
and the dialect to the tables, and a check that failed and was caught."""

from __future__ import annotations

from typing import Any

import pytest

from tests.project import checkout
from tests.standin_project import (
    TOKENS,
    Table,
    binaries,
    contradictions,
    experiment,
    failed,
    give,
    tables,
    weights_file,
    weights_folder,
)

from .conftest import Project

pytestmark = pytest.mark.slow

MLC, IMP = "mlc-stand-in", "mlc-imp-stand-in"
PREFILL, SYSTEM, TOKEN = 300, 200, 40
BEHAVIOUR = f"load_ms 200\nprefill_ms {PREFILL}\ntoken_ms {TOKEN}\nprompt_tokens 600\n"


def version(source: dict[str, str], form: str) -> dict[str, Any]:
    words = [
        *("--stats", form, "--model", "{model}", "--model-lib", "{library}", "--device", "{device}"),
        *("--image", "{image}", "--prompt", "{prompt}", "--max-gen-len", "{max_tokens}"),
        *("--temperature", "{temperature}"),
    ]
    return {
        "source": source,
        "quirks": {
            "arguments": words,
            "prompt": {"first": "<image>\n{text}"},
            "ignore_eos": [],
            "fixed": {"context": 4096, "prefill_chunk": 2048},
        },
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Measured once: usage and verbose statistics token by token, short ones by two tokens, and MLC-Imp."""
    project = checkout(tmp_path_factory.mktemp("mlc"))
    source = binaries(project, "mlc", "bin/mlc-chat")
    library = weights_file(project, "library.so", "compiled\n")
    folders = {
        "Q4F16_1": BEHAVIOUR,
        "Q4F16_2": f"{BEHAVIOUR}interval 2\n",
        "Q4F32_1": f"{BEHAVIOUR}system_ms {SYSTEM}\n",
        "Q0F16": f"{BEHAVIOUR}caught 1\n",
    }
    shards = {"params_shard_0.bin": "shard\n", "mlc-chat-config.json": "{}\n"}
    formats = {
        name: {
            "model": weights_folder(project, name, {**shards, "stand-in.txt": text}),
            "library": library,
        }
        for name, text in folders.items()
    }
    versions = {form: version(source, form) for form in ("usage", "verbose", "short")}
    table = {
        MLC: {"adapter": "mlc", "versions": versions, "backends": {"cpu": {}}},
        IMP: {"adapter": "mlcimp", "versions": {"imp": version(source, "imp")}, "backends": {"cpu": {}}},
    }
    give(project, table, {"mlc": formats})
    experiment(
        project,
        "standin",
        (MLC, "usage", "Q4F16_1"),
        (MLC, "verbose", "Q4F16_1"),
        (MLC, "short", "Q4F16_2"),
        (IMP, "imp", "Q4F32_1"),
    )
    experiment(project, "caught", (MLC, "usage", "Q0F16"), absent="refuse")
    done = project.snakemake(*tables("standin"), experiment="standin")
    assert done.returncode == 0, done.stdout[-4000:]
    return project


def test_every_form_of_statistics_reaches_the_tables(project: Project) -> None:
    table = Table(project, "standin")
    for form in ("usage", "verbose"):
        assert table.median(MLC, form, "run", "reported.prompt_eval") == pytest.approx(PREFILL, rel=0.2)
        assert table.median(MLC, form, "decode", "tokens") == TOKENS
        assert table.median(MLC, form, "decode", "tokens_per_second") == pytest.approx(1e3 / TOKEN, rel=0.2)
        assert table.median(MLC, form, "decode", "agreement.decode") == pytest.approx(0, abs=5)
        assert table.median(MLC, form, "load", "duration") == pytest.approx(200, rel=0.4)
    assert table.median(MLC, "usage", "run", "reported.total") > PREFILL + (TOKENS - 1) * TOKEN
    for form, framework in (("usage", MLC), ("verbose", MLC), ("short", MLC), ("imp", IMP)):
        assert "in one piece" in table.missing(framework, form, "image_encode", "duration")
        step = table.median(framework, form, "decode", "reported.decode_step")
        assert step == pytest.approx(TOKEN, rel=0.2)
    assert contradictions(project, "standin") == []


def test_two_tokens_at_a_time_hide_when_the_first_was_there(project: Project) -> None:
    table = Table(project, "standin")
    for metric in ("duration", "tokens_per_second"):
        assert "shows several at a time" in table.missing(MLC, "short", "decode", metric)
    assert "shows several at a time" in table.missing(MLC, "short", "run", "time_to_first_token")
    assert "printed no time" in table.missing(MLC, "short", "decode", "reported.decode")


def test_the_prefill_of_mlc_imp_is_a_time_and_no_rate(project: Project) -> None:
    table = Table(project, "standin")
    assert table.median(IMP, "imp", "run", "reported.prompt_eval") == pytest.approx(PREFILL + SYSTEM, abs=100)
    assert "not comparable" in table.missing(IMP, "imp", "run", "agreement.prompt_eval")
    assert "not comparable" in table.missing(IMP, "imp", "text_prefill", "tokens_per_second")


def test_a_check_that_failed_and_was_caught_counts_nothing(project: Project) -> None:
    said = failed(project, "caught")
    assert "InternalError: Check failed: (false) is false" in said
