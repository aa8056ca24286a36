"""Models of the hub through the real rules, from a hub on loopback: locked, downloaded, taken up, refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pocketvlm.provenance import sha256_file
from pocketvlm.weights.description import read_record
from pocketvlm.weights.synthetic import preset_from_config, write
from tests import hub_server
from tests.hub_server import REPOSITORY, REVISION, Hub
from tests.project import ROOT, Project

ENTRY = f"""
tiny-hub:
  kind: hub
  chat_template: vicuna
  quantisations: [Q4_0, Q8_0]
  quantiser: {{framework: llama.cpp, version: "0.3.16", program: bin/llama-quantize}}
  hub:
    repository: {REPOSITORY}
    licence: apache-2.0
    files:
      model-f16: f16.gguf
      model-Q8_0: q8.gguf
      mmproj-f16: mmproj.gguf
"""
WEIGHTS = "results/weights/tiny-hub/model-Q8_0.gguf"
SIZE = 8_000_000
NANO = "synthetic-llava-nano"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the small preset, as the hub may have one."""
    path = tmp_path_factory.mktemp("nano") / "f16.gguf"
    models = yaml.safe_load((ROOT / "config/models.yaml").read_text())
    write(preset_from_config(NANO, models[NANO]["preset"]), "model", path)
    return path


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("files")
    sizes = {"q8": SIZE, "mmproj": 3_000_000}
    with hub_server.serving(
        **{name: hub_server.tiny_gguf(folder, size) for name, size in sizes.items()}
    ) as served:
        served.repositories[REPOSITORY]["f16.gguf"] = served.repositories[REPOSITORY]["mmproj.gguf"]
        yield served


@pytest.fixture
def client(project: Project, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose table has a model of that hub, with a cache and an HF_HOME of its own."""
    with (project.path / "config/models.yaml").open("a") as stream:
        stream.write(ENTRY)
    with (project.path / "config/config.yaml").open("a") as stream:
        stream.write("models: tiny-hub\n")
    project.environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_TOKEN": "",
        "POCKETVLM_CACHE": str(tmp_path_factory.mktemp("cache")),
        "HTTP_PROXY": "",
        "http_proxy": "",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    return project


def partials(project: Project) -> list[Path]:
    return list((project.path / "results/weights/tiny-hub").glob(".*.partial"))


def is_right(project: Project, hub: Hub) -> bool:
    path = project.path / WEIGHTS
    sha256 = hashlib.sha256(hub.repositories[REPOSITORY]["q8.gguf"]).hexdigest()
    return sha256_file(path) == sha256 == read_record(path)["sha256"]


def test_locked_then_downloaded_then_nothing_is_to_be_done(client: Project, hub: Hub) -> None:
    done = client.snakemake(WEIGHTS)
    assert done.returncode != 0
    assert "tiny-hub is not locked" in done.stdout and "lock_models" in done.stdout.splitlines()[-1]
    assert hub.asked == []

    hub.faults["api"] = [hub_server.busy(429, "1")]
    done = client.snakemake("lock_models")
    assert done.returncode == 0, done.stdout
    assert "the hub answered 429; attempt 2 of 6 in 1 s" in done.stdout
    lock = yaml.safe_load((client.path / "config/models.lock.yaml").read_text())
    assert list(lock["models"]) == ["tiny-hub"] and lock["models"]["tiny-hub"]["revision"] == REVISION

    hub.faults["blob"] = [hub_server.cut(5_000_000)]
    done = client.snakemake(WEIGHTS)
    assert done.returncode == 0, done.stdout
    assert is_right(client, hub) and partials(client) == []
    assert hub.ranges() == [None, "bytes=5000000-"]

    count = len(hub.asked)
    done = client.snakemake(WEIGHTS)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout
    # What was downloaded once serves every clone of the same user.
    (client.path / WEIGHTS).unlink()
    done = client.snakemake(WEIGHTS)
    assert done.returncode == 0 and is_right(client, hub)
    assert len(hub.asked) == count
    home = Path(client.environment["HF_HOME"])
    assert list(home.rglob("*")) == []


def test_a_wrong_file_is_neither_kept_nor_cached(client: Project, hub: Hub) -> None:
    assert client.snakemake("lock_models").returncode == 0
    hub.faults["blob"] = [hub_server.other_bytes(lambda data: data[:-1] + b"!")]
    done = client.snakemake(WEIGHTS)
    assert done.returncode != 0
    right = hashlib.sha256(hub.repositories[REPOSITORY]["q8.gguf"]).hexdigest()
    assert f"expected {right}; it was thrown away" in done.stdout.splitlines()[-1]
    folder = client.path / "results/weights/tiny-hub"
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert client.snakemake(WEIGHTS).returncode == 0
    assert is_right(client, hub)


def test_a_killed_download_is_taken_up_again(client: Project, hub: Hub) -> None:
    assert client.snakemake("lock_models").returncode == 0
    hub.faults["blob"] = [hub_server.slow(100_000, 0.1)]
    process = client.start(WEIGHTS)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 1_000_000 for path in partials(client)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (partial,) = partials(client)
    came = partial.stat().st_size
    assert 1_000_000 < came < SIZE and not (client.path / WEIGHTS).exists()
    done = client.snakemake(WEIGHTS)
    assert done.returncode == 0, done.stdout
    assert is_right(client, hub) and partials(client) == []
    assert hub.ranges() == [None, f"bytes={came}-"]


def test_a_hub_that_is_down_keeps_the_lock_as_it_was(client: Project, hub: Hub) -> None:
    path = client.path / "config/models.lock.yaml"
    assert client.snakemake("lock_models").returncode == 0
    before = path.read_bytes()
    hub.token = "hf_good"
    hub.faults["api"] = [hub_server.busy(503, "9999")]
    done = client.snakemake("lock_models")
    assert done.returncode != 0 and "asks to wait 9999 s" in done.stdout.splitlines()[-1]
    assert path.read_bytes() == before
    done = client.snakemake(WEIGHTS)
    assert done.returncode != 0 and "set HF_TOKEN" in done.stdout.splitlines()[-1]
    client.environment["HF_TOKEN"] = "hf_good"
    assert client.snakemake(WEIGHTS).returncode == 0
    assert is_right(client, hub)


@pytest.mark.slow
def test_what_the_hub_has_as_f16_only_is_quantised_here(client: Project, hub: Hub, nano: Path) -> None:
    """The same bytes as from the preset: where the f16 file came from makes no difference."""
    del client.environment["POCKETVLM_CACHE"]  # the quantiser is in the shared one
    hub.repositories[REPOSITORY]["f16.gguf"] = nano.read_bytes()
    assert client.snakemake("lock_models").returncode == 0
    ours, theirs = (f"results/weights/{model}/model-Q4_0" for model in ("tiny-hub", NANO))
    done = client.snakemake(f"{ours}.gguf", f"{theirs}.gguf")
    assert done.returncode == 0, done.stdout
    assert (client.path / f"{ours}.gguf").read_bytes() == (client.path / f"{theirs}.gguf").read_bytes()
    records = [json.loads((client.path / f"{path}.json").read_text()) for path in (ours, theirs)]
    assert records[0] == records[1]
