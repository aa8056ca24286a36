"""How fast files reach a device: this library, plain adb, verification, and a bundle that has not changed.

Prints one JSON object; each value is the median of interleaved repetitions on the emulated phone.
library_mb_s, adb_mb_s: push of one file of random bytes; adb as a program with its own start, and without
compression, which is its fastest way for such bytes.
verify_mb_s: sha256sum on the device.
redeploy_s: deploying three files that are there already, the large one among them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from pocketvlm.devices.adb_server import adb_program
from pocketvlm.devices.base import run
from pocketvlm.devices.deploy import deploy
from pocketvlm.devices.emulated.lease import lease

_CONFIG = Path(__file__).parents[2] / "config/devices/emulated-phone.yaml"


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    size = options.megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = copy.deepcopy(yaml.safe_load(_CONFIG.read_text()))
        config["emulated"]["folder"] = str(folder / "phone")
        large, *small = (folder / part for part in ("large.bin", "program", "library"))
        large.write_bytes(os.urandom(size))
        for file in small:
            file.write_bytes(os.urandom(1_000_000))
        bundle = [(file, hashlib.sha256(file.read_bytes()).hexdigest()) for file in (large, *small)]
        times: dict[str, list[float]] = {"library": [], "adb": [], "verify": [], "redeploy": []}
        with lease(config) as phone:
            there = f"{phone.remote_dir}/pushed.bin"
            adb = [str(adb_program()), "-P", str(phone.server_port), "-s", str(phone.serial)]

            def plain() -> None:
                push = [*adb, "push", "-Z", str(large), there]
                subprocess.run(push, check=True, capture_output=True, stdin=subprocess.DEVNULL)

            calls: dict[str, Callable[[], object]] = {
                "library": lambda: phone.push(large, there),
                "adb": plain,
                "verify": lambda: run(phone, ["sha256sum", there], 120),
                "redeploy": lambda: deploy(phone, bundle, phone.remote_dir),
            }
            deploy(phone, bundle, phone.remote_dir)
            for repetition in range(options.repeats + 1):
                # The order turns, so that none is always the one after a particular other.
                names = list(calls)
                for what in names[repetition % 4 :] + names[: repetition % 4]:
                    if what in ("library", "adb"):
                        run(phone, ["rm", "-f", there], 30)
                    elif what == "verify" and phone.shell(["test", "-e", there], 10).status != 0:
                        phone.push(large, there)
                    elapsed = _seconds(calls[what])
                    if repetition:
                        times[what].append(elapsed)
    median = {what: statistics.median(values) for what, values in times.items()}
    result = {f"{what}_mb_s": round(size / 1e6 / median[what], 1) for what in ("library", "adb", "verify")}
    print(json.dumps({**result, "redeploy_s": round(median["redeploy"], 4)}))


if __name__ == "__main__":
    main()
