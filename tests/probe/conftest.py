"""The probe, built here from its sources, native and for arm64 under qemu-user."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pocketvlm.errors import ProvisionError
from pocketvlm.provision import apt
from tests.probe.recording import Prober, built


@pytest.fixture(scope="session")
def native_probe() -> Path:
    return built(f"{platform.machine()}-linux-musl")


@pytest.fixture(scope="session")
def emulated_probe() -> list[str]:
    """The arm64 probe under qemu-user; skipped only where the emulator cannot be had."""
    try:
        emulator = apt.tree(["qemu-user-static"]) / "usr/bin/qemu-aarch64-static"
    except ProvisionError as error:
        pytest.skip(f"qemu-user cannot be had: {error}")
    return [str(emulator), str(built("aarch64-linux-musl"))]


@pytest.fixture
def prober(native_probe: Path, tmp_path: Path) -> Prober:
    return Prober([str(native_probe)], tmp_path)


@pytest.fixture(params=["native", "arm64 under qemu"])
def any_prober(request: pytest.FixtureRequest, tmp_path: Path) -> Prober:
    """The probe of this machine, and the same for arm64 under emulation."""
    if request.param == "native":
        return Prober([str(request.getfixturevalue("native_probe"))], tmp_path)
    return Prober(request.getfixturevalue("emulated_probe"), tmp_path)
