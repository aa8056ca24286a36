"""From one clone to another: rendered there without the device, the weights, the builds or the network."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, checkout

pytestmark = pytest.mark.slow

TABLES = ("tables/cells.csv", "tables/runs.parquet", "tables/self_audit.csv", "tables/ledger.csv")


@pytest.fixture(scope="module")
def packed(finished: Project) -> Path:
    """The archive of the finished experiment."""
    done = finished.snakemake("pack")
    assert done.returncode == 0, done.stdout[-3000:]
    archive = finished.path / "results/micro/micro.pocketvlm.tar.gz"
    assert archive.is_file()
    return archive


def unpack(project: Project, archive: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `snakemake unpack` (or other targets) on an archive."""
    with project.start(*(words or ("unpack",)), config=(f"archive={archive}",)) as process:
        out, _ = process.communicate(timeout=1800)
    return subprocess.CompletedProcess(process.args, process.returncode, out)


@pytest.fixture(scope="module")
def receiver(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another working copy that has no experiment of this name, and rendered the archive."""
    project = checkout(tmp_path_factory.mktemp("receiver"))
    (project.path / "config/experiments/micro.yaml").unlink()
    (project.path / "config/workloads/other.yaml").unlink()
    own = project.path / "results/raw/0123456789abcdef/00"
    own.mkdir(parents=True)
    (own / "meta.json").write_text("{}")
    # Nothing can be built, fetched or found in a cache.
    project.environment |= {
        "POCKETVLM_CACHE": str(tmp_path_factory.mktemp("cache")),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }
    done = unpack(project, packed)
    assert done.returncode == 0, done.stdout[-4000:]
    for rule in ("fetch_source", "build_", "quantise_model", "identify_device", "measure_", "synthesise"):
        assert f"start {rule}" not in done.stdout
    return project


def received(project: Project) -> Path:
    """The only folder of received results."""
    (root,) = (project.path / "results/received").iterdir()
    return root


def test_packing_twice_gives_the_same_bytes(finished: Project, packed: Path) -> None:
    before = packed.read_bytes()
    done = finished.snakemake("pack", "--forcerun", "pack_experiment")
    assert done.returncode == 0
    assert packed.read_bytes() == before


def test_the_tables_are_the_senders_byte_by_byte(finished: Project, receiver: Project) -> None:
    root = received(receiver)
    for name in TABLES:
        here, there = root / "micro" / name, finished.path / "results/micro" / name
        assert here.read_bytes() == there.read_bytes(), name
    assert json.loads((root / "micro/tables/received.json").read_text())["identical"] is True


def test_everything_is_rendered_and_says_where_it_is_from(packed: Path, receiver: Project) -> None:
    root = received(receiver)
    commit = json.loads((root / "origin.json").read_text())["commit"] or "unknown"
    page = (root / "micro/report/index.html").read_text()
    assert "Measured by others" in page and commit in page
    assert f"packed at commit {commit}" in (root / "micro/tables/cells.md").read_text()
    assert len(list((root / "micro/traces/local").glob("*.json.gz"))) == 4
    assert len(list((root / "micro/figures").glob("*.svg"))) >= 5


def test_nothing_of_ones_own_is_touched(receiver: Project) -> None:
    results = receiver.path / "results"
    assert {path.name for path in results.iterdir()} <= {"logs", "paper", "raw", "received"}
    assert [path.name for path in (results / "raw").rglob("*") if path.is_file()] == ["meta.json"]


def test_it_can_be_verified_and_needs_nothing_twice(packed: Path, receiver: Project) -> None:
    again = unpack(receiver, packed)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout, again.stdout[-2000:]
    verified = unpack(receiver, packed, "verify")
    assert verified.returncode == 0, verified.stdout[-3000:]


def test_a_changed_run_is_found(packed: Path, receiver: Project, tmp_path: Path) -> None:
    project = receiver.copy(tmp_path)
    run = next(received(project).glob("raw/*/00"))
    (run / "stdout").write_text("changed")
    failed = unpack(project, packed, "verify")
    assert failed.returncode != 0
    assert "stdout has sha256" in failed.stdout
    failed = unpack(project, packed, "unpack", "--forcerun", "unpack_experiment")
    assert failed.returncode != 0
    assert "stdout was changed since this archive was unpacked before" in failed.stdout
    assert (run / "stdout").read_text() == "changed"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data[: len(data) // 2], "is cut short or damaged"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "damaged|goes on|cut short"),
    ],
)
def test_a_bad_archive_ends_with_one_sentence(
    packed: Path, project: Project, spoil: Callable[[bytes], bytes], told: str
) -> None:
    bad = project.path / "bad.pocketvlm.tar.gz"
    bad.write_bytes(spoil(packed.read_bytes()))
    failed = unpack(project, bad)
    assert failed.returncode != 0
    assert any(part in failed.stdout for part in told.split("|"))
    assert "Traceback" not in failed.stdout
    assert not list(project.path.glob("results/received/*/raw"))


def test_without_an_archive_the_target_says_what_to_give(project: Project) -> None:
    failed = project.snakemake("unpack")
    assert failed.returncode != 0
    assert "unpack --config archive=PATH" in failed.stdout
    failed = unpack(project, Path("nowhere.tar.gz"))
    assert failed.returncode != 0
    assert "the archive cannot be read" in failed.stdout and "Traceback" not in failed.stdout


def test_the_archive_can_be_looked_at_with_tar(packed: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(packed, tmp_path)
    folder = tmp_path / "micro.pocketvlm"
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if (path.is_file() and path.name != "manifest.json") or path.parent.parent.name == "bundles"
    } == {path: entry["sha256"] for path, entry in listed.items()}
