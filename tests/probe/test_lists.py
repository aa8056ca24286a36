"""The sensor list: what the probe refuses, and what the library writes for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvlm.errors import ConfigError
from pocketvlm.measure import sensorlist
from tests.probe.recording import HEADER, Prober


def refusal(probe: Path, content: bytes, folder: Path) -> str | None:
    """Return what the probe says of a list, None if it takes it."""
    path = folder / "list.tsv"
    path.write_bytes(content)
    out = folder / "not made"
    out.write_text("a file where the folder should be: a list that passes fails here")
    command = [str(probe), "run", "--sensors", str(path), "--out", str(out), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 3:
        return None
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        ("group\ta\t0\n", 2, "1 to 3600000 milliseconds"),
        ("group\ta\t-1\n", 2, "1 to 3600000 milliseconds"),
        ("group\ta\t1.5\n", 2, "1 to 3600000 milliseconds"),
        ("group\ta\t3600001\n", 2, "1 to 3600000 milliseconds"),
        ("group\ta\n", 2, "a name and a period"),
        ("group\ta\t1\t2\n", 2, "a name and a period"),
        ("group\tA\t1\n", 2, "group's name"),
        ("group\t../a\t1\n", 2, "group's name"),
        ("group\twake\t1\n", 2, "taken by the responsiveness thread"),
        ("group\ta\t1\n", 2, "has no sensor"),
        ("group\ta\t1\nsensor\tx\t/a\tfirst\ngroup\ta\t1\n", 4, "here twice"),
        ("sensor\tx\t/a\tfirst\n", 2, "before the first group"),
        ("group\ta\t1\nsensor\tx\t/a\n", 3, "a name, a path and a select"),
        ("group\ta\t1\nsensor\tx\t/a\tfirst\t\n", 3, "a name, a path and a select"),
        ("group\ta\t1\nsensor\tx y\t/a\tfirst\n", 3, "sensor's name"),
        ("group\ta\t1\nsensor\t" + "x" * 101 + "\t/a\tfirst\n", 3, "sensor's name"),
        ("group\ta\t1\nsensor\tx\ta\tfirst\n", 3, "must begin with /"),
        ("group\ta\t1\nsensor\tx\t/" + "a" * 1024 + "\tfirst\n", 3, "longer than 1024 bytes"),
        ("group\ta\t1\nsensor\tx\t/a\tlast\n", 3, "none of first"),
        ("group\ta\t1\nsensor\tx\t/a\tfield:\n", 3, "field:N"),
        ("group\ta\t1\nsensor\tx\t/a\tfield:-1\n", 3, "field:N"),
        ("group\ta\t1\nsensor\tx\t/a\tfield:10000\n", 3, "field:N"),
        ("group\ta\t1\nsensor\tx\t/a\tstat:0\n", 3, "stat:N"),
        ("group\ta\t1\nsensor\tx\t/a\tstat:2\n", 3, "no numbers"),
        ("group\ta\t1\nsensor\tx\t/a\tline:1\n", 3, "line:KEY:N"),
        ("group\ta\t1\nsensor\tx\t/a\tline::1\n", 3, "line:KEY:N"),
        ("group\ta\t1\nsensor\tx\t/a\tline:cpu:\n", 3, "line:KEY:N"),
        ("group\ta\t1\nsensor\tx\t/a\tioctl:0x\n", 3, "ioctl:REQUEST"),
        ("group\ta\t1\nsensor\tx\t/a\tioctl:123456789\n", 3, "ioctl:REQUEST"),
        ("group\ta\t1\nsensor\tx\t/a\tfirst\nsensor\tx\t/b\tfirst\n", 4, "here twice"),
        ("group\ta\t1\nsensor\tx\t/a\tfirst\ngroup\tb\t1\nsensor\tx\t/b\tfirst\n", 5, "here twice"),
        ("group\ta\t1\r\nsensor\tx\t/a\tfirst\r\n", 2, "1 to 3600000 milliseconds"),
        ("group\ta\t1\n\nsensor\tx\t/a\tfirst\n", 3, "begins with group or sensor"),
        ("# remark\n", 2, "begins with group or sensor"),
        ("group\ta\t1\nsensor\tx\t/a\0b\tfirst\n", 3, "NUL"),
    ],
)
def test_bad_list_is_refused_with_its_line(
    native_probe: Path, tmp_path: Path, lines: str, line: int, says: str
) -> None:
    message = refusal(native_probe, (HEADER + lines).encode(), tmp_path)
    assert message is not None
    assert f"list.tsv: line {line}: " in message
    assert says in message


@pytest.mark.parametrize("content", [b"", b"\n", b"group\ta\t1\n", b"pocketvlm-sensors\t2\n", b"\xff\xfe"])
def test_file_that_is_no_list(native_probe: Path, tmp_path: Path, content: bytes) -> None:
    message = refusal(native_probe, content, tmp_path)
    assert message is not None
    assert "line 1: a sensor list begins with pocketvlm-sensors" in message


def test_missing_and_huge_list(native_probe: Path, tmp_path: Path) -> None:
    command = [str(native_probe), "run", "--out", str(tmp_path / "o"), "--sensors"]
    done = subprocess.run([*command, "/none", "--", "true"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "probe: the sensor list /none: it cannot be read: ENOENT.\n")
    (tmp_path / "huge").write_bytes(b"x" * (5 << 20))
    done = subprocess.run([*command, str(tmp_path / "huge"), "--", "true"], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert not (tmp_path / "o").exists()


def test_list_without_sensors_and_without_last_line_end(native_probe: Path, tmp_path: Path) -> None:
    assert refusal(native_probe, HEADER.encode(), tmp_path) is None
    assert refusal(native_probe, (HEADER + "group\ta\t1\nsensor\tx\t/a\tfirst").encode(), tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "probe run --sensors"),
        (["jump"], "no such command: jump"),
        (["run"], "--sensors is missing"),
        (["run", "--sensors", "l"], "--out is missing"),
        (["run", "--sensors", "l", "--out", "o"], "the command is missing"),
        (["run", "--sensors", "l", "--out", "o", "--"], "the command is missing"),
        (["run", "--sensors"], "a value is missing after --sensors"),
        (["run", "--speed", "9"], "no such option: --speed"),
        (["run", "--deadline", "soon"], "--deadline must be"),
        (["run", "--deadline", "-1"], "--deadline must be"),
        (["run", "--deadline", "nan"], "--deadline must be"),
        (["run", "--max-output", "64M"], "--max-output must be"),
        (["run", "--max-output", "0"], "--max-output must be"),
        (["run", "--wake-us", "5"], "--wake-us must be"),
        (["sensors", "/sys"], "sensors takes nothing but --root"),
    ],
)
def test_bad_usage(native_probe: Path, arguments: list[str], says: str) -> None:
    done = subprocess.run([str(native_probe), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def identity(**changes: Any) -> dict[str, Any]:
    sensor = {"name": "cpu.user", "group": "cpu", "path": "/proc/stat", "select": "line:cpu:1"}
    return {"groups": {"cpu": {"period_ms": 100}}, "sensors": [sensor | changes]}


def test_list_from_an_identity(prober: Prober, tmp_path: Path) -> None:
    described = {
        "groups": {"cpu": {"period_ms": 100}, "none": {"period_ms": 5}, "battery": {"period_ms": 200}},
        "sensors": [
            {"name": "battery.status", "group": "battery", "path": "/x y/é/status", "select": "text"},
            {"name": "cpu.user", "group": "cpu", "path": "/proc/stat", "select": "line:cpu:1"},
            {"name": "rss", "group": "cpu", "path": "/proc/{pid}/statm", "select": "field:1"},
        ],
    }
    sensorlist.write(described, tmp_path / "list.tsv")
    assert (tmp_path / "list.tsv").read_text() == (
        "pocketvlm-sensors\t1\n"
        "group\tcpu\t100\nsensor\tcpu.user\t/proc/stat\tline:cpu:1\nsensor\trss\t/proc/{pid}/statm\tfield:1\n"
        "group\tbattery\t200\nsensor\tbattery.status\t/x y/é/status\ttext\n"
    )
    recording = prober.run((tmp_path / "list.tsv").read_text().removeprefix(HEADER), ["true"])
    assert list(recording.record["groups"]) == ["cpu", "battery"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "CPU"}, "name is 'CPU'"),
        ({"name": ""}, "name is ''"),
        ({"group": "gpu"}, "unknown group 'gpu'"),
        ({"path": "relative"}, "begins with /"),
        ({"path": "/a\tb"}, "tab"),
        ({"path": "/a\nb"}, "tab"),
        ({"path": "/" + "é" * 600}, "1024 bytes"),
        ({"select": "last"}, "select of cpu.user"),
        ({"select": "first\n"}, "select of cpu.user"),
        ({"select": "stat:3"}, "select of cpu.user"),
        ({"select": "field:٣"}, "select of cpu.user"),
    ],
)
def test_identity_that_makes_no_list(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match="sensors\\[0\\]") as caught:
        sensorlist.write(identity(**changes), tmp_path / "list.tsv")
    assert says in str(caught.value)
    assert not (tmp_path / "list.tsv").exists()


@pytest.mark.parametrize("period", [0, 1.5, True, "100", 3_600_001])
def test_identity_with_a_bad_period(period: object) -> None:
    with pytest.raises(ConfigError, match=r"groups\.cpu"):
        sensorlist.text(identity() | {"groups": {"cpu": {"period_ms": period}}})


def test_identity_with_a_name_twice_or_taken() -> None:
    twice = identity()
    with pytest.raises(ConfigError, match="stands there twice"):
        sensorlist.text(twice | {"sensors": twice["sensors"] * 2})
    with pytest.raises(ConfigError, match="responsiveness"):
        sensorlist.text(identity(group="wake") | {"groups": {"wake": {"period_ms": 1}}})


WORDS = st.text("abz09_.-AB/{}:\t\n\r \0é", max_size=12)
SELECTS = st.one_of(
    st.sampled_from(["first", "text", "stat:14", "field:0", "line:cpu:1", "ioctl:0x80047101"]),
    st.builds("{}:{}".format, st.sampled_from(["field", "stat", "ioctl", "line:x", "line"]), WORDS),
    st.builds("line:{}:{}".format, WORDS, st.integers(-1, 10_001)),
    st.builds("{}:{}".format, st.sampled_from(["field", "stat"]), st.integers(-1, 10_001)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=WORDS, path=st.builds("/{}".format, WORDS) | WORDS, select=SELECTS)
def test_library_and_probe_agree(
    native_probe: Path, tmp_path: Path, name: str, path: str, select: str
) -> None:
    """Whatever the library writes the probe takes; what the library refuses the probe would have refused."""
    try:
        content = sensorlist.text(identity(name=name, path=path, select=select))
    except ConfigError:
        raw = f"{HEADER}group\tcpu\t100\nsensor\t{name}\t{path}\t{select}\n"
        assert refusal(native_probe, raw.encode(), tmp_path) is not None
    else:
        assert refusal(native_probe, content.encode(), tmp_path) is None
