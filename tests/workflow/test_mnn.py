"""MNN from its wheel to the tables: fetched, weights converted, run here; and a phone without Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pocketvlm.build.toolchains import host_target
from tests.experiments import cell_text, experiment_text
from tests.project import ROOT, Project, checkout

pytestmark = pytest.mark.slow

MNN = {"framework": "mnn", "version": '"3.6.1"', "quantisation": "INT8"}
EXPERIMENT = experiment_text(
    "a wheel's whole way", cell_text(**MNN), cell_text(device="emulated-phone", **MNN), absent="row"
)
MODEL = "synthetic-llava-nano"
TABLES = [f"results/wheel/tables/{name}" for name in ("cells.csv", "self_audit.csv")]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A working copy in which MNN has been measured."""
    project = checkout(tmp_path_factory.mktemp("mnn"))
    (project.path / "config/experiments/wheel.yaml").write_text(EXPERIMENT)
    done = project.snakemake(*TABLES, experiment="wheel")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


@pytest.fixture(scope="module")
def cells(measured: Project) -> pd.DataFrame:
    return pd.read_csv(measured.path / TABLES[0])


def test_what_can_be_seen_is_a_number_and_the_rest_says_why(cells: pd.DataFrame) -> None:
    local = cells[cells["device"] == "local"].set_index(["phase", "metric"])
    assert local.loc[("run", "duration"), "median"] > 0
    for phase in ("load", "image_encode", "decode"):
        row = local.loc[(phase, "duration")]
        # The small model takes milliseconds: a busy machine may bring two lines at once.
        assert row["median"] > 0 or "arrived in one piece" in row["gate"]
    assert local.loc[("run", "time_to_first_token"), "n"] == 2
    assert local.loc[("decode", "tokens"), "median"] == 40
    # 144 patches, and the two tokens around them.
    assert local.loc[("image_prefill", "tokens"), "median"] == 146
    for counter, phase in (("load", "load"), ("image_encode", "image_encode"), ("prompt_eval", "run")):
        assert local.loc[(phase, f"reported.{counter}"), "median"] > 0
    for phase in ("text_prefill", "image_prefill"):
        row = local.loc[(phase, "duration")]
        assert row["n"] == 0
        assert row["gate"] == "MNN evaluates text and image of the prompt in one call"


def test_the_phone_is_a_row_with_its_reason(cells: pd.DataFrame) -> None:
    phone = cells[cells["device"] == "emulated-phone"]
    assert (phone["n"] == 0).all()
    assert phone["gate"].str.contains("devices have no Python that could run it").all()


def test_the_tables_do_not_contradict_themselves(measured: Project) -> None:
    audit = pd.read_csv(measured.path / TABLES[1])
    assert "contradiction" not in set(audit["verdict"])
    assert (audit["verdict"] == "consistent").sum() > 10


def test_equal_runs_give_equal_printable_answers_of_the_whole_budget(measured: Project) -> None:
    answers = pd.read_parquet(measured.path / "results/wheel/records/local/answers.parquet")
    assert len(answers) == 2
    assert answers["sha256"].nunique() == 1
    assert answers["tokens"].tolist() == [40, 40]
    assert all(text.isprintable() for text in answers["text"])
    assert len(set(answers["text"][0].split())) > 10


def test_nothing_was_installed_and_the_interpreter_is_no_part_of_the_key(measured: Project) -> None:
    (meta,) = {json.dumps(run["key_inputs"], sort_keys=True) for run in measured.raw_runs().values()}
    assert '"@python"' in meta
    assert sys.executable not in meta
    bundle = measured.path / f"results/bundles/mnn-3.6.1-cpu-{host_target()}"
    assert (bundle / "lib/MNN/llm/__init__.py").is_file()
    assert json.loads((bundle / "manifest.json").read_text())["source"]["file"].startswith("mnn-3.6.1-cp311")


def test_the_converted_networks_compute_what_the_gguf_files_say(measured: Project) -> None:
    weights = measured.path / f"results/weights/{MODEL}"
    library = measured.path / f"results/bundles/mnn-3.6.1-cpu-{host_target()}/lib"
    files = [weights / "mnn-INT8/model", weights / "model-f16.gguf", weights / "mmproj-f16.gguf"]
    script = Path("tests/mnn_reference.py")
    done = subprocess.run(
        [sys.executable, ROOT / script, library, *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["vision"] > 0.99999
    assert found["vision_off"] < 1e-3
    # Eight bits a weight.
    assert found["language"] > 0.999
