"""The peaks of a device: measured on this machine, quoted for phones, none where they would mean nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.config.paper import load_paper
from pocketvlm.devices.base import Device, run
from pocketvlm.devices.deploy import deploy
from pocketvlm.errors import DeviceError
from pocketvlm.measure.block import hold
from pocketvlm.provenance import read_json, sha256_file

log = logging.getLogger(__name__)

PROGRAM = "bin/peaks"
SECONDS_A_KERNEL = 1.0
# The benchmark reads this much of a thread's buffer in a pass (PASS_BYTES of kernels.h).
PASS_BYTES = 64 << 20
# Buffers of all threads together: what a cache holds of them must not matter.
_LEAST_BUFFER_BYTES = 512 << 20
_CACHES = 8
_TIMEOUT_S = 120.0

# A line each for the data caches of every core: level, size in KiB, and which cores share it.
_CACHE_SCRIPT = """\
for cache in "$1"/sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*; do
  [ -r "$cache/size" ] && [ "$(cat "$cache/type")" != Instruction ] &&
    echo "$(cat "$cache/level") $(cat "$cache/size") $(cat "$cache/shared_cpu_list")"
done
exit 0
"""


def find_peaks(
    config: Mapping[str, Any], *, papers: Path, results: Path, bundle: Path | None, identity: Path | None
) -> dict[str, Any]:
    """Return the record `peaks.json` of a device.

    Args:
        config: the device's file of `config/devices`.
        papers: folder of the published values, which a quoted peak may refer to.
        results: folder of results.
        bundle: the benchmark compiled for the device's target; only for a device that is measured.
        identity: the device's `identity.json`; only for a device that is measured.

    Raises:
        ConfigError: a quoted value refers to what is not published.
        DeviceError, TransientDeviceError: the device refuses, does not answer, or the benchmark fails.
    """
    if "peaks" in config:
        return quoted(config, papers)
    if config["kind"] == "local":
        assert bundle is not None and identity is not None
        with hold(config, results) as device:
            return measured(device, bundle, read_json(identity))
    reasons = {
        "emulated": "an emulated phone has no peak of its own: its instructions are translated and its "
        "memory is that of the machine it runs on",
        "phone": f"no peaks are quoted in the file of {config['id']}: add `peaks` with its source",
    }
    return _record(config["id"], config["kind"], None, None, {}, reasons[config["kind"]])


def is_measured(config: Mapping[str, Any]) -> bool:
    """Say whether a device's peaks are measured on it."""
    return config["kind"] == "local" and "peaks" not in config


def quoted_from(config: Mapping[str, Any], papers: Path) -> list[Path]:
    """Return the files of published values that a device's quoted peaks refer to."""
    bandwidth = config.get("peaks", {}).get("bandwidth_gb_s")
    return [papers / f"{bandwidth['paper']}.yaml"] if isinstance(bandwidth, Mapping) else []


def quoted(config: Mapping[str, Any], papers: Path) -> dict[str, Any]:
    """Return the peaks that a device's file quotes; a peak that it does not quote is null with the reason."""
    entry = config["peaks"]
    sources = dict.fromkeys(("bandwidth", "operations"), f"quoted: {entry['source']}")
    bandwidth = entry.get("bandwidth_gb_s")
    if isinstance(bandwidth, Mapping):
        paper = load_paper(papers / f"{bandwidth['paper']}.yaml")
        value = paper.published("memory_bandwidth_gb_s", bandwidth["chip"])
        sources["bandwidth"] += f" ({bandwidth['chip']} in {paper.path.name})"
        bandwidth = value.middle if value else None
    operations = entry.get("operations_tera_s")
    lacking = [
        name for name, value in (("bandwidth", bandwidth), ("operations", operations)) if value is None
    ]
    reason = (
        f"no peak of {' and '.join(lacking)} is quoted in the file of {config['id']}" if lacking else None
    )
    return _record(
        config["id"],
        config["kind"],
        None if bandwidth is None else bandwidth * 1e9,
        None if operations is None else operations * 1e12,
        {name: source for name, source in sources.items() if name not in lacking},
        reason,
    )


def measured(device: Device, bundle: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Run the benchmark on a device that is held, and return its peaks.

    Raises:
        DeviceError: the benchmark failed or printed what is no result.
        TransientDeviceError: the device stopped answering.
    """
    cache = last_level_cache(run(device, ["sh", "-c", _CACHE_SCRIPT, "sh", device.sysfs_root], 30))
    threads, buffer_bytes = sizes(identity["cpus"], identity["memory_bytes"], cache)
    program = bundle / PROGRAM
    digest = sha256_file(program)
    placed = deploy(device, [(program, digest)], device.remote_dir, programs={program}, report=log.info)
    command = [*device.exec_prefix, placed[digest], str(threads), str(buffer_bytes), str(SECONDS_A_KERNEL)]
    printed = run(device, command, _TIMEOUT_S)
    try:
        kernels = json.loads(printed)["kernels"]
        bandwidth = max((k for k in kernels if k["kind"] == "bandwidth"), key=lambda k: k["best"])
        operations = max((k for k in kernels if k["kind"] == "operations"), key=lambda k: k["best"])
        told = {kernel["kernel"]: (kernel["best"], kernel["median"]) for kernel in (bandwidth, operations)}
        if not all(0 < median <= best < 1e18 for best, median in told.values()):
            raise ValueError(f"rates of {told}")
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"the benchmark of peaks printed no result on {device.id}: {error}: {printed[:200]!r}",
            do="Run it by hand on the device to see why",
        ) from None
    plural = "s" if threads > 1 else ""
    how = f"measured with {threads} thread{plural}: "
    buffers = f"{threads * buffer_bytes >> 20} MiB"
    sources = {
        "bandwidth": how + f"{_told(bandwidth, 'GB/s', 1e9)}, {buffers}",
        "operations": how + _told(operations, "tera-operations/s", 1e12),
    }
    record = _record(device.id, device.kind, bandwidth["best"], operations["best"], sources, None)
    return {**record, "threads": threads, "cache_bytes": cache, "kernels": kernels}


def sizes(cpus: int, memory_bytes: int, cache_bytes: int | None) -> tuple[int, int]:
    """Return how many threads to run, one a core, and the bytes of each thread's buffer.

    Together the buffers are several times the last-level cache and no more than a quarter of the memory.
    """
    most = memory_bytes // 4
    threads = max(1, min(cpus, most // PASS_BYTES))
    wanted = min(max(_LEAST_BUFFER_BYTES, _CACHES * (cache_bytes or 0)), most)
    return threads, max(PASS_BYTES, wanted // threads // PASS_BYTES * PASS_BYTES)


def last_level_cache(listed: str) -> int | None:
    """Return the bytes of all last-level caches together; None where the device does not tell.

    Args:
        listed: a line each for the data caches of every core: level, size (`32768K`), cores that share it.

    Source: Documentation/ABI/testing/sysfs-devices-system-cpu of Linux.
    """
    found: dict[tuple[int, str], int] = {}
    for line in listed.splitlines():
        words = line.split()
        if len(words) == 3 and words[0].isdigit() and words[1][:-1].isdigit() and words[1][-1] in "KM":
            unit = {"K": 1 << 10, "M": 1 << 20}[words[1][-1]]
            found[int(words[0]), words[2]] = int(words[1][:-1]) * unit
    last = max((level for level, _ in found), default=None)
    return None if last is None else sum(size for (level, _), size in found.items() if level == last)


def _told(kernel: Mapping[str, Any], unit: str, scale: float) -> str:
    behind = 100 * (1 - kernel["median"] / kernel["best"])
    return (
        f"{kernel['best'] / scale:.3g} {unit} {kernel['kernel']}, the best of {kernel['passes']} passes, "
        f"whose median is {behind:.0f} % lower"
    )


def _record(
    device: str,
    kind: str,
    bandwidth: float | None,
    operations: float | None,
    sources: Mapping[str, str],
    reason: str | None,
) -> dict[str, Any]:
    return {
        "format": 1,
        "device": device,
        "kind": kind,
        "bandwidth_bytes_per_s": bandwidth,
        "operations_per_s": operations,
        "source": "; ".join(dict.fromkeys(sources.values())),
        "sources": dict(sources),
        "reason": reason,
        "threads": None,
        "cache_bytes": None,
        "kernels": [],
    }
