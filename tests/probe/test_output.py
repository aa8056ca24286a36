"""What the probe leaves on the disk, its reproducible build, and what it lists of a device."""

from __future__ import annotations

import platform
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.probe.recording import SOURCES, Prober, compile_probe, python

CPU = "group\tcpu\t50\nsensor\tuser\t/proc/stat\tline:cpu:1\n"


def test_files_of_a_run(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, ["sleep", "0.2"])
    assert {path.name for path in recording.folder.iterdir()} == {
        "cpu.csv", "wake.csv", "stdout", "stderr", "events.jsonl", "probe.json",
    }  # fmt: skip
    record = recording.record
    assert list(record) == [
        "format", "version", "clock", "start_us", "end_us", "exited", "status", "signal", "deadline_hit",
        "probe_cpu_us", "stdout_bytes", "stderr_bytes", "truncated", "monotonic_offset_us",
        "groups", "sensors",
    ]  # fmt: skip
    assert (record["format"], record["clock"]) == (1, "boottime")
    assert 200_000 <= record["end_us"] - record["start_us"] < 1_000_000
    assert 0 < record["probe_cpu_us"] < 500_000
    now_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    assert 0 < now_us - record["end_us"] < 10_000_000


def test_run_is_never_replaced(prober: Prober) -> None:
    first = prober.run(CPU, ["echo", "first"])
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    second = prober.run(CPU, ["echo", "second"], out=first.folder)
    assert second.code == 3
    assert "File exists" in second.message
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_folder_that_cannot_be_made(prober: Prober, tmp_path: Path) -> None:
    recording = prober.run(CPU, ["touch", str(tmp_path / "ran")], out=tmp_path / "no" / "such" / "folder")
    assert recording.code == 3
    assert "No such file or directory" in recording.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", ["stdout", "samples"])
def test_full_disk_leaves_nothing_that_looks_complete(prober: Prober, tmp_path: Path, what: str) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same place, with EFBIG."""
    noisy = ["yes"] if what == "stdout" else ["sleep", "60"]
    sensors = (
        CPU
        if what == "stdout"
        else "group\tg\t1\n"
        + "".join(f"sensor\ts{i}\t/proc/stat\tline:cpu:{1 + i % 4}\n" for i in range(200))
    )
    command = prober.arguments(sensors, noisy, "--max-output", "100000000")
    began = time.monotonic()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 3
    assert "File too large. The run is not recorded" in done.stderr
    assert not (prober.out / "probe.json").exists()
    assert not list(prober.out.glob(".*"))
    assert time.monotonic() - began < 20


def test_really_full_disk(prober: Prober, tmp_path: Path) -> None:
    """On a file system of 64 KiB, in a user namespace of its own; skipped where there are none."""
    small = tmp_path / "small"
    small.mkdir()
    mount = 'mount -t tmpfs -o size=64k none "$0" && "$@"; code=$?; ls -A "$0" "$0/run"; exit $code'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(small)]
    if subprocess.run([*inside, "mkdir", f"{small}/run"], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("mounting in a user namespace is not permitted here")
    command = prober.arguments(CPU, ["yes"], out=small / "run")
    done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "No space left on device. The run is not recorded" in done.stderr
    assert "stdout" in done.stdout.split()
    assert "probe.json" not in done.stdout


def test_nothing_complete_before_the_end(prober: Prober) -> None:
    process = prober.start(CPU, ["sleep", "1"])
    time.sleep(0.5)
    assert (prober.out / "events.jsonl").exists()
    assert not (prober.out / "probe.json").exists()
    assert prober.finish(process).complete


@pytest.mark.slow
def test_build_is_reproducible(tmp_path: Path) -> None:
    """The same bytes from two folders, one with a space in its name."""
    built = []
    for name in ("one", "another folder"):
        folder = tmp_path / name / "src"
        shutil.copytree(SOURCES, folder)
        compile_probe(folder, tmp_path / name / "probe", f"{platform.machine()}-linux-musl")
        built.append((tmp_path / name / "probe").read_bytes())
    assert built[0] == built[1]
    assert str(tmp_path).encode() not in built[0]


def test_build_is_static_for_its_machine(native_probe: Path, emulated_probe: list[str]) -> None:
    machines = {"x86_64": 62, "aarch64": 183}
    for path, machine in ((native_probe, platform.machine()), (Path(emulated_probe[-1]), "aarch64")):
        data = path.read_bytes()
        assert data[:5] == b"\x7fELF\x02"
        assert int.from_bytes(data[18:20], "little") == machines[machine]
        assert b"ld-linux" not in data
        assert len(data) < 400_000


def test_version(any_prober: Prober) -> None:
    done = subprocess.run([*any_prober.command, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert any_prober.run(CPU, ["true"]).record["version"] == done.stdout.strip()


def listed(prober: Prober, *arguments: str) -> dict[str, tuple[str, str, str]]:
    command = [*prober.command, "sensors", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(row) == 4 for row in rows)
    return {row[1]: (row[0], row[2], row[3]) for row in rows}


def test_sensors_of_this_machine(any_prober: Prober) -> None:
    found = listed(any_prober)
    category, readable, sample = found["/proc/stat"]
    assert (category, readable) == ("cpu", "yes")
    assert sample.startswith("cpu ")
    assert found["/proc/meminfo"][1] == "yes"
    assert "/dev/sysmon_subsystem_stats" in found


def test_sensors_below_a_root(any_prober: Prober, tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-0-0\n",
        "sys/class/thermal/thermal_zone0/temp": "45000\n",
        "sys/class/thermal/thermal_zone10/temp": "1\n",
        "sys/class/thermal/thermal_zone2/temp": "2\n",
        "sys/class/thermal/cooling_device0/type": "fan\n",
        "sys/class/power_supply/battery/status": "Discharging\tnow\n",
        "sys/class/power_supply/battery/current_now": "",
        "sys/class/kgsl/kgsl-3d0/gpu_busy_percentage": "7 %\n",
        "sys/devices/system/cpu/cpufreq/policy4/stats/time_in_state": "300000 12\n1804800 5\n",
        "sys/kernel/dsp_stats/cdsp/load": "12\x01\xff",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    (tmp_path / "sys/class/kgsl/kgsl-3d0/gpuclk").mkdir()
    found = listed(any_prober, "--root", str(tmp_path))
    below = {path.removeprefix(f"{tmp_path}/"): row for path, row in found.items()}
    assert below["sys/class/thermal/thermal_zone0/type"] == ("thermal", "yes", "cpu-0-0")
    assert below["sys/class/power_supply/battery/status"] == ("power_supply", "yes", "Discharging now")
    assert below["sys/class/power_supply/battery/current_now"] == ("power_supply", "yes", "")
    assert below["sys/class/kgsl/kgsl-3d0/gpu_busy_percentage"] == ("kgsl", "yes", "7 %")
    assert below["sys/class/kgsl/kgsl-3d0/gpuclk"] == ("kgsl", "EISDIR", "")
    assert below["sys/class/kgsl/kgsl-3d0/gpubusy"] == ("kgsl", "ENOENT", "")
    policy = "sys/devices/system/cpu/cpufreq/policy4/stats/time_in_state"
    assert below[policy] == ("cpufreq", "yes", "300000 12")
    assert below["sys/kernel/dsp_stats/cdsp/load"] == ("npu", "yes", "12??")
    assert found["/proc/stat"][1] == "yes"
    zones = [path for path in below if path.endswith("/temp") and "thermal_zone" in path]
    assert [zone.split("/")[3] for zone in zones] == ["thermal_zone0", "thermal_zone2", "thermal_zone10"]
    assert not any("cooling_device" in path for path in below)


def test_long_run_of_chunks_is_bounded_too(prober: Prober) -> None:
    """Single bytes cost more in events than in output: the events have the same limit."""
    code = "import os\nwhile True: os.write(2, b'x'); os.sched_yield()"
    recording = prober.run(CPU, python(code), "--max-output", "1048576", "--deadline", "50")
    assert recording.record["truncated"] is True
    assert (recording.folder / "events.jsonl").stat().st_size < 1_200_000
