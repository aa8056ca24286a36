"""A hub on loopback, and a file of it that is to be downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_server
from tests.hub_server import REPOSITORY, REVISION, Hub
from tests.hub_target import SIZE, Target, point_at


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GGUF file of 3 MB."""
    return hub_server.tiny_gguf(tmp_path_factory.mktemp("gguf"), SIZE)


@pytest.fixture
def hub(gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the file, and is the one that huggingface_hub asks."""
    with hub_server.serving(model=gguf) as served:
        point_at(monkeypatch, served.url, tmp_path / "home")
        yield served


@pytest.fixture
def target(gguf: bytes, tmp_path: Path) -> Target:
    """The file as a lock pins it."""
    pin = {
        "repository": REPOSITORY,
        "revision": REVISION,
        "file": "model.gguf",
        "bytes": len(gguf),
        "sha256": hashlib.sha256(gguf).hexdigest(),
    }
    folder = tmp_path / "weights"
    folder.mkdir()
    return Target(pin, folder / "model-Q4_0.gguf")
