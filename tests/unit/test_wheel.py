"""Wheels: found by file name, verified, and unpacked without leaving the folder."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from pocketvlm.build.wheel import build_wheel
from pocketvlm.errors import ConfigError, IntegrityError, ProvisionError
from pocketvlm.provision import pip_config, wheel
from pocketvlm.provision.pip_config import PipConfig

NAME = "some_engine-1.2.3-cp311-cp311-manylinux2014_x86_64.whl"


def pack(path: Path, members: dict[str, bytes]) -> dict[str, str]:
    """Write a wheel and return its pin."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip is configured with."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setattr(
        pip_config, "read", lambda: PipConfig(no_index=True, find_links=(str(folder),), retries=0)
    )
    return folder


def test_a_bundle_is_the_wheel_and_the_program_that_calls_it(index: Path, tmp_path: Path) -> None:
    pin = pack(index / NAME, {"engine/__init__.py": b"x = 1\n", "engine/core.so": b"\x7fELF"})
    pack(index / NAME.replace("cp311", "cp312"), {"engine/__init__.py": b"x = 2\n"})
    program = tmp_path / "run.py"
    program.write_text("import engine\n")
    made = tmp_path / "bundle"
    build_wheel(pin, programs=[program], target="x86_64-linux-musl", destination=made)
    assert (made / "lib/engine/__init__.py").read_text() == "x = 1\n"
    assert (made / "bin/run.py").read_text() == "import engine\n"
    manifest = json.loads((made / "manifest.json").read_text())
    assert set(manifest["files"]) == {"bin/run.py", "lib/engine/__init__.py", "lib/engine/core.so"}
    assert manifest["source"] == pin
    assert manifest["toolchain"] == {"name": "wheel", "version": "cp311-cp311-manylinux2014_x86_64"}


def test_another_hash_or_no_such_wheel_leaves_nothing(index: Path, tmp_path: Path) -> None:
    pin = pack(index / NAME, {"engine.py": b""})
    made = tmp_path / "bundle"
    with pytest.raises(IntegrityError, match=f"{pin['sha256']}, expected {'0' * 64}"):
        build_wheel({**pin, "sha256": "0" * 64}, programs=[], target="t", destination=made)
    other = NAME.replace("x86_64", "riscv64")
    with pytest.raises(ProvisionError, match=f"no {other} of some_engine 1.2.3"):
        build_wheel({**pin, "file": other}, programs=[], target="t", destination=made)
    assert not made.exists()


def test_a_wheel_for_another_python_or_without_a_needed_file_is_refused(index: Path, tmp_path: Path) -> None:
    pin = pack(index / NAME, {"engine.py": b""})
    with pytest.raises(ProvisionError, match="is for cp27, and this environment's Python is cp311"):
        build_wheel(
            {**pin, "file": NAME.replace("cp311", "cp27")},
            programs=[],
            target="t",
            destination=tmp_path / "made",
        )
    with pytest.raises(ProvisionError, match=r"lack bin/run\.py"):
        build_wheel(pin, programs=[], target="t", destination=tmp_path / "made", required=["bin/run.py"])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("cp311-cp311", True),
        ("py3-none", True),
        ("py2.py3-none", True),
        ("cp38-abi3", True),
        ("cp311.cp312-abi3", True),
        ("py38-none", True),
        ("cp310-cp310", False),
        ("cp399-abi3", False),
        ("py399-none", False),
        ("py2-none", False),
        ("pp311-pypy311_pp73", False),
    ],
)
def test_what_this_python_can_load_is_taken(index: Path, tmp_path: Path, tags: str, fits: bool) -> None:
    pin = pack(index / f"some_engine-1.2.3-{tags}-any.whl", {"engine.py": b""})
    made = tmp_path / "bundle"
    if fits:
        build_wheel(pin, programs=[], target="t", destination=made)
    else:
        with pytest.raises(ProvisionError, match=f"is for {tags.partition('-')[0]}, and this"):
            build_wheel(pin, programs=[], target="t", destination=made)
    assert made.exists() == fits


def test_a_name_that_is_none_of_a_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of a wheel"):
        wheel.fetch({"file": "engine.whl", "sha256": "0" * 64}, tmp_path)


def test_a_wheel_that_leaves_its_folder_is_refused(index: Path, tmp_path: Path) -> None:
    pin = pack(index / NAME, {"../../out": b"x"})
    with pytest.raises(IntegrityError, match="leaves the folder"):
        build_wheel(pin, programs=[], target="t", destination=tmp_path / "made/bundle")
    assert not (tmp_path / "made/out").exists()
    assert list((tmp_path / "made").iterdir()) == []
