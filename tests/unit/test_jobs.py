"""What a run is made of: its files, its variables, and the whole of its bundle on the device."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from handmade import IDENTITY

from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, IntegrityError, ProvisionError
from pocketvlm.frameworks import ADAPTERS, command
from pocketvlm.measure.jobs import CellFiles, Job, bundle_tree, cell_job
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.store import RawStore
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.provision.tree import tree_sha256
from pocketvlm.weights.formats import take_weights
from tests.probe.conftest import built

PROGRAM = """#!/bin/sh
here=${0%/*}
echo "$(cat "$here/../lib/words.so") $LIBRARY $MODE $(ls "$2" | tr '\\n' ' ') $(cat "$1")"
"""


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An adapter whose program needs a library beside it, variables, a file and a folder of weights."""
    command = ModuleType("odd.command")
    command.__dict__.update(
        WEIGHTS="odd",
        ROLES=("model", "shards"),
        command=lambda **_: ["@bundle/bin/run", "@weights/model", "@weights/shards"],
        environment=lambda **_: {"LIBRARY": "@bundle/lib", "MODE": "fast"},
        unfinished=lambda stdout, stderr: None,
        resolve_settings=lambda settings, *, where="settings": dict(settings),
    )
    monkeypatch.setitem(sys.modules, "odd.command", command)
    monkeypatch.setitem(ADAPTERS, "odd", "odd")
    return command


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles/odd-1-cpu-x"
    for name, text, mode in (("bin/run", PROGRAM, 0o755), ("lib/words.so", "words", 0o644)):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(mode)
    write_manifest(folder)
    return folder


def write_manifest(folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_file(path), "mode": f"{path.stat().st_mode & 0o777:04o}"
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }  # fmt: skip
    write_json(folder / "manifest.json", {"files": files})


@pytest.fixture
def cell(tmp_path: Path, adapter: ModuleType, bundle: Path) -> CellFiles:
    given = tmp_path / "given"
    (given / "shards").mkdir(parents=True)
    (given / "model.odd").write_text("weights")
    (given / "shards/tokenizer.json").write_text("[]")
    (given / "shards/params_0.bin").write_text("0")
    weights = tmp_path / "weights/m/odd-Q4"
    take(given / "model.odd", sha256_file(given / "model.odd"), weights, "model")
    take(given / "shards", tree_sha256(given / "shards"), weights, "shards")
    image = tmp_path / "image.png"
    image.write_bytes(b"image")
    return CellFiles(
        "c", "odd", "1", bundle, {role: weights / role for role in ("model", "shards")},
        {"id": "w", "image_path": str(image), "max_tokens": 4}, {}, {}, {},
    )  # fmt: skip


def take(source: Path, sha256: str, weights: Path, role: str) -> None:
    take_weights(
        source, sha256, weights_format="odd", destination=weights / role, record=weights / f"{role}.json"
    )


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    folder = tmp_path / "probe"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/probe").symlink_to(built(f"{os.uname().machine}-linux-musl"))
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def runner(tmp_path: Path, probe: Path) -> Iterator[Runner]:
    identity: Mapping[str, Any] = {**IDENTITY, "sensors": [], "groups": {}}
    yield Runner(
        LocalDevice("local", tmp_path / "device"),
        identity,
        probe,
        30,
        RawStore(tmp_path / "raw"),
        tmp_path / "f",
    )


def test_a_bundle_comes_whole_with_its_folders_and_the_variables_are_set(
    cell: CellFiles, probe: Path, runner: Runner
) -> None:
    job = cell_job(cell, IDENTITY, probe)
    runner.deploy([job])
    stored = runner.run(job, {"role": "measured", "argv": list(job.argv), "block": "b"}, "c")
    said = (stored.folder / "stdout").read_text().split()
    library, mode = said[1:3]
    assert said[0] == "words", "the program found what lies beside it"
    assert Path(library).name == "lib" and Path(library).is_dir() and mode == "fast"
    assert said[3:] == ["params_0.bin", "tokenizer.json", "weights"]
    meta = json.loads((stored.folder / "meta.json").read_text())
    assert meta["key_inputs"]["environment"] == {"LIBRARY": "@bundle/lib", "MODE": "fast"}


def test_what_changed_in_the_bundle_on_the_device_makes_a_run_invalid(
    cell: CellFiles, probe: Path, runner: Runner
) -> None:
    job = cell_job(cell, IDENTITY, probe)
    runner.deploy([job])
    library = next(Path(runner.device.remote_dir).rglob("words.so"))
    library.write_text("other")
    with pytest.raises(IntegrityError, match=r"words\.so changed"):
        runner.run(job, {"role": "measured", "argv": [], "block": "b"}, "c")


def key(cell: CellFiles, probe: Path) -> str:
    return cell_job(cell, IDENTITY, probe).key


def test_variables_libraries_and_weights_are_part_of_the_key(
    cell: CellFiles, probe: Path, adapter: ModuleType, bundle: Path, tmp_path: Path
) -> None:
    keys = [key(cell, probe)]
    adapter.__dict__["environment"] = lambda **_: {"MODE": "slow"}
    keys.append(key(cell, probe))
    (bundle / "lib/words.so").write_text("other")
    write_manifest(bundle)
    keys.append(key(cell, probe))
    other = tmp_path / "other.odd"
    other.write_text("other weights")
    take(other, sha256_file(other), cell.weights["model"].parent, "model")
    keys.append(key(cell, probe))
    assert len(set(keys)) == 4


def test_llama_cpp_has_no_variables_so_that_its_keys_stay_what_they_were() -> None:
    assert command("llamacpp").environment(backend="cpu", settings={}) == {}


def test_a_file_that_was_changed_is_refused_wherever_it_lies(
    cell: CellFiles, probe: Path, bundle: Path
) -> None:
    shard = cell.weights["shards"] / "params_0.bin"
    shard.unlink()
    shard.write_text("1")
    with pytest.raises(IntegrityError, match="shards was changed since it was taken"):
        cell_job(cell, IDENTITY, probe)
    (bundle / "lib/words.so").unlink()
    with pytest.raises(IntegrityError, match=r"lib/words\.so of the bundle odd-1-cpu-x has sha256 no file"):
        cell_job(cell, IDENTITY, probe)


def test_a_command_that_asks_for_what_the_bundle_lacks_is_told(
    cell: CellFiles, probe: Path, adapter: ModuleType
) -> None:
    adapter.__dict__["command"] = lambda **_: ["@bundle/bin/ran", "@weights/model"]
    with pytest.raises(ProvisionError, match=r"the bundle odd-1-cpu-x has no bin/ran.*check_frameworks"):
        cell_job(cell, IDENTITY, probe)


def test_a_name_that_no_device_should_see_is_refused(cell: CellFiles, bundle: Path, runner: Runner) -> None:
    (bundle / "lib/a b;c").write_text("x")
    write_manifest(bundle)
    job = Job(("x",), {}, {}, trees=(bundle_tree(bundle),))
    with pytest.raises(DeviceError, match=r"'lib/a b;c' .* cannot be deployed"):
        runner.deploy([job])
