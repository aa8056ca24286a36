"""The peaks of a device: what the benchmark says becomes a record, and what is quoted stays as it is."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build.program import build_program
from pocketvlm.build.toolchains import host_target, resolve
from pocketvlm.config.schema import load_yaml, validate
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import ConfigError, DeviceError
from pocketvlm.peaks import measure
from pocketvlm.provenance import read_json, sha256_file

ROOT = Path(__file__).parents[2]
PROGRAM = measure.PROGRAM
IDENTITY = {"cpus": 2, "memory_bytes": 4 << 30}
KERNELS = [
    {"kernel": "one stream", "kind": "bandwidth", "best": 2e10, "median": 1.5e10, "passes": 40},
    {"kernel": "four streams", "kind": "bandwidth", "best": 3e10, "median": 2.7e10, "passes": 50},
    {"kernel": "int8", "kind": "operations", "best": 4e11, "median": 3e11, "passes": 60},
    {"kernel": "float32", "kind": "operations", "best": 1e11, "median": 9e10, "passes": 70},
]


def program(folder: Path, text: str) -> Path:
    """A bundle whose benchmark is a shell script."""
    path = folder / "bundle" / PROGRAM
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder / "bundle"


def test_the_best_kernel_of_each_kind_is_the_peak(tmp_path: Path) -> None:
    printed = json.dumps({"format": 1, "kernels": KERNELS})
    bundle = program(tmp_path, f"echo \"$@\" > {tmp_path}/words; echo '{printed}'")
    record = measure.measured(LocalDevice("box", tmp_path / "device"), bundle, IDENTITY)
    assert record["bandwidth_bytes_per_s"] == 3e10
    assert record["operations_per_s"] == 4e11
    assert record["kernels"] == KERNELS
    assert record["reason"] is None
    threads, buffer_bytes, seconds = (tmp_path / "words").read_text().split()
    assert (int(threads), float(seconds)) == (2, measure.SECONDS_A_KERNEL)
    assert int(buffer_bytes) % measure.PASS_BYTES == 0
    for told in ("30 GB/s four streams", "best of 50 passes", "10 % lower", "0.4 tera", "with 2 threads"):
        assert told in record["source"]


@pytest.mark.parametrize(
    "text",
    [
        "echo no json",
        "echo '{}'",
        """echo '{"kernels": []}'""",
        """echo '{"kernels": [{"kernel": "a", "kind": "bandwidth", "best": 1, "median": 2, "passes": 1},"""
        """ {"kernel": "b", "kind": "operations", "best": 1, "median": 1, "passes": 1}]}'""",
        "echo broken >&2; exit 3",
    ],
)
def test_a_benchmark_without_a_result_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeviceError) as caught:
        measure.measured(LocalDevice("box", tmp_path / "device"), program(tmp_path, text), IDENTITY)
    assert "box" in str(caught.value)


def test_caches_of_the_last_level_are_added_once_each() -> None:
    listed = "1 32K 0\n2 1024K 0\n3 16384K 0-1\n1 32K 1\n2 1024K 1\n3 16384K 0-1\n3 8M 2-3\nx\n"
    assert measure.last_level_cache(listed) == (16384 << 10) + (8 << 20)
    assert measure.last_level_cache("") is None


def test_buffers_are_far_larger_than_the_caches_and_far_smaller_than_the_memory() -> None:
    threads, each = measure.sizes(2, 64 << 30, 256 << 20)
    assert threads == 2 and threads * each >= 8 * (256 << 20)
    threads, each = measure.sizes(64, 2 << 30, None)
    assert 1 < threads < 64 and threads * each <= (2 << 30) // 4
    assert measure.sizes(4, 1 << 26, None) == (1, measure.PASS_BYTES)


def device(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = load_yaml(ROOT / "config/devices/local.yaml", "device")
    config |= {"id": "p", "kind": "phone", "transport": {"serial": None, "server_port": 5037}, **changes}
    validate(config, "device", where="test")
    return config


def test_a_quoted_bandwidth_is_the_published_one_and_nothing_is_typed_again() -> None:
    papers = ROOT / "config/paper"
    name = "arxiv-2507.08505"
    values = yaml.safe_load((papers / f"{name}.yaml").read_text())["memory_bandwidth_gb_s"]
    for chip, value in values.items():
        peaks = {"source": "a data sheet", "bandwidth_gb_s": {"paper": name, "chip": chip}}
        config = device(peaks=peaks)
        record = measure.find_peaks(config, papers=papers, results=Path(), bundle=None, identity=None)
        assert record["bandwidth_bytes_per_s"] == value * 1e9
        assert record["operations_per_s"] is None
        assert "no peak of operations is quoted" in record["reason"]
        assert record["source"].startswith("quoted: a data sheet") and name in record["source"]
        assert measure.quoted_from(config, papers) == [papers / f"{name}.yaml"]


def test_a_chip_that_is_not_published_is_refused() -> None:
    peaks = {"source": "s", "bandwidth_gb_s": {"paper": "arxiv-2507.08505", "chip": "no such"}}
    with pytest.raises(ConfigError, match="no such"):
        measure.quoted(device(peaks=peaks), ROOT / "config/paper")


def test_numbers_may_be_quoted_too() -> None:
    record = measure.quoted(
        device(peaks={"source": "s", "bandwidth_gb_s": 50, "operations_tera_s": 2}), Path()
    )
    assert (record["bandwidth_bytes_per_s"], record["operations_per_s"]) == (50e9, 2e12)
    assert record["reason"] is None


@pytest.mark.parametrize(
    "peaks", [{"source": "only"}, {"bandwidth_gb_s": 1}, {"source": "s", "bandwidth_gb_s": 0}]
)
def test_the_schema_refuses_peaks_that_say_nothing(peaks: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        device(peaks=peaks)


def test_a_phone_without_quoted_peaks_and_an_emulated_one_have_none() -> None:
    plain = measure.find_peaks(device(), papers=Path(), results=Path(), bundle=None, identity=None)
    assert plain["bandwidth_bytes_per_s"] is None and "no peaks are quoted" in plain["reason"]
    emulated = load_yaml(ROOT / "config/devices/emulated-phone.yaml", "device")
    record = measure.find_peaks(emulated, papers=Path(), results=Path(), bundle=None, identity=None)
    assert record["operations_per_s"] is None and "translated" in record["reason"]
    assert measure.is_measured(load_yaml(ROOT / "config/devices/local.yaml", "device"))
    assert not measure.is_measured(emulated) and not measure.is_measured(device())


@pytest.mark.slow
def test_the_benchmark_measures_this_machine(tmp_path: Path) -> None:
    catalogue = load_yaml(ROOT / "config/toolchains.yaml", "toolchains")
    bundle = tmp_path / "peaks"
    build_program(
        "peaks",
        sources=sorted((ROOT / "workflow/peaks").glob("*.[ch]")),
        toolchain=resolve(catalogue, host_target()),
        destination=bundle,
        build_log=tmp_path / "log",
    )
    manifest = read_json(bundle / "manifest.json")
    assert manifest["files"][PROGRAM]["sha256"] == sha256_file(bundle / PROGRAM)
    assert manifest["cpu_features"] == resolve(catalogue, host_target()).cpu
    box = LocalDevice("box", tmp_path / "device")
    record = measure.measured(box, bundle, IDENTITY)
    # No machine that runs this is slower or faster.
    assert 5e8 < record["bandwidth_bytes_per_s"] < 1e13
    assert 1e9 < record["operations_per_s"] < 1e16
    assert {kernel["kind"] for kernel in record["kernels"]} == {"bandwidth", "operations"}
    for words in ([], ["2", "67108864"], ["0", "67108864", "1"], ["2", "1000", "1"], ["2", "x", "1"]):
        assert box.shell([str(bundle / PROGRAM), *words], 30).status == 2
