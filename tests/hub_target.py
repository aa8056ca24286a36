"""What is to be downloaded from a hub on loopback, and how little patience the tests have with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import constants

from pocketvlm.weights import download
from pocketvlm.weights.description import read_record
from pocketvlm.weights.hub_access import Patience

HASTE = Patience(tries=3, pause_s=0.01, longest_s=5, timeout_s=2, stall_s=2, report_s=3600)
SIZE = 3_000_000


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Let huggingface_hub ask that hub; it reads the environment only once."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))


def flipped(whole: bytes) -> bytes:
    return whole[:-1] + bytes([whole[-1] ^ 1])


class Target(NamedTuple):
    """What is to be downloaded, and whereto."""

    pin: dict[str, Any]
    path: Path

    def fetch(self, patience: Patience = HASTE) -> None:
        download.fetch(self.pin, self.path, patience)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())

    def partial(self) -> Path:
        return self.path.parent / f".{self.path.name}.{self.pin['sha256'][:16]}.partial"

    def is_right(self, data: bytes) -> bool:
        """The file and its record are there, whole, and nothing else."""
        if self.files() != sorted([self.path.name, self.path.with_suffix(".json").name]):
            return False
        record = read_record(self.path)
        return self.path.read_bytes() == data and record["sha256"] == self.pin["sha256"]
