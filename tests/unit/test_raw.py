"""A recorded run is read whole, or refused with the place that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from handmade import output, sensor_files, stderr_0_3_16, stdout_0_3_16, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvlm.analyse import raw
from pocketvlm.errors import IntegrityError, PocketvlmError

KEY = "ab" * 32


def run(tmp_path: Path, **options: object) -> Path:
    folder = tmp_path / KEY / "00"
    write_run(folder, output(stdout_0_3_16(), stderr_0_3_16()), **options)  # type: ignore[arg-type]
    return folder


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file as a hostile device would have recorded it, hash and all."""
    import hashlib

    (folder / name).write_bytes(data)
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_a_run_is_read_into_arrays(tmp_path: Path) -> None:
    read = raw.read_run(run(tmp_path))
    assert read.name == f"{KEY}/00"
    assert read.wall_us == 5_000_000
    assert set(read.groups) == {"cpu", "battery"}
    cpu = read.groups["cpu"]
    assert cpu.t_us.tolist() == list(range(0, 5_000_000, 100_000))
    assert cpu.columns["cpu.total.user"][10] == 200.0
    assert read.wake_t_us.size == 300
    assert read.output.stdout.time_of(0) == 1_000_000
    assert read.output.stdout.time_of(len(read.output.stdout.data) - 1) == 4_000_000


def test_what_could_not_be_read_is_nan_and_never_zero(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    path.write_text("t_us,a,b\n1,,2.5\n2,-3e2,\n")
    times, columns = raw.read_csv(path)
    assert times.tolist() == [1, 2]
    np.testing.assert_array_equal(columns["a"], [np.nan, -300.0])
    np.testing.assert_array_equal(columns["b"], [2.5, np.nan])
    path.write_text("t_us,a\n")
    times, columns = raw.read_csv(path)
    assert times.size == 0
    assert columns["a"].size == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"t_us,a\n2,1\n1,1\n", "go back at line 3"),
        (b"t_us,a\n1\n", "malformed"),
        (b"t_us,a\n1,2,3\n", "malformed"),
        (b"t_us,a\n1,two\n", "malformed"),
        (b"t_us,a\n1,nan\n", "finite"),
        (b"t_us,a\n1,inf\n", "finite"),
        (b"t_us,a\n,1\n", "no time"),
        (b"t_us,a\n1.5,1\n", "malformed"),
        (b"t_us,a,a\n1,1,1\n", "each once"),
        (b"time,a\n1,1\n", "must be t_us"),
        (b"t_us,A b\n1,1\n", "no sensor name"),
        (b"t_us,\xff\n1,1\n", "no plain text"),
        (b't_us,a\n1,"__import__(1)"\n', "malformed"),
        (b"", "must be t_us"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "cpu.csv"
    path.write_bytes(text)
    with pytest.raises(IntegrityError, match=message):
        raw.read_csv(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"t_us":1,"event":"chunk"', "line 2 is no JSON"),
        (b"[1]", "line 2 is no event"),
        (b"[" * 100_000, "line 2 is no JSON"),
        (b'{"t_us":true,"event":"end"}', "not an integer"),
        (b'{"t_us":1e99,"event":"end"}', "not an integer"),
        (b'{"t_us":-1,"event":"end"}', "go back at line 2"),
        (b"{" + b" " * (1 << 20) + b"}", "longer than"),
    ],
)
def test_events_that_are_none_are_refused(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t_us":0,"event":"start"}\n' + line + b"\n")
    with pytest.raises(IntegrityError, match=message):
        raw.read_events(path)


def test_text_of_a_device_that_is_no_utf_8_is_still_text(tmp_path: Path) -> None:
    folder = run(tmp_path, texts=())
    start = b'{"t_us":7000000000,"event":"text","sensor":"s","value":"\xff"}\n'
    rewrite(folder, "events.jsonl", start + (folder / "events.jsonl").read_bytes())
    assert raw.read_run(folder).texts == ((0, "s", "\ufffd"),)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    folder = run(tmp_path)
    sha = raw.hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()
    raw.read_run(folder, sha)
    with pytest.raises(IntegrityError, match="the index names"):
        raw.read_run(folder, "0" * 64)
    with (folder / "cpu.csv").open("ab") as stream:
        stream.write(b"9,1,1,1,1\n")
    with pytest.raises(IntegrityError, match=r"cpu\.csv has sha256") as caught:
        raw.read_run(folder, sha)
    assert caught.value.do == (
        "Restore the file, or remove the run's folder and run "
        "`snakemake --cores 4 all --forcerun measure_block`"
    )


def test_chunks_must_make_up_the_stream(tmp_path: Path) -> None:
    folder = run(tmp_path)
    rewrite(folder, "stdout", (folder / "stdout").read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="its chunks have"):
        raw.read_run(folder)


def test_links_and_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("t_us,a\n")
    (folder / "cpu.csv").unlink()
    (folder / "cpu.csv").symlink_to(secret)
    with pytest.raises(IntegrityError, match="no regular file"):
        raw.read_run(folder)
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"] = {"../secret": {"sha256": "0"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(IntegrityError, match="names a file"):
        raw.read_run(folder)
    for name in ("../x", "ab/../../etc", "/etc/00", "x" * 64 + "/00", KEY + "/0/1"):
        with pytest.raises(IntegrityError, match="no run of the raw store"):
            raw.run_folder(tmp_path, name)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpu.csv"
    path.write_bytes(b"t_us,a\n" + b"1,1\n" * 100)
    monkeypatch.setitem(raw.MAX_BYTES, ".csv", 100)
    with pytest.raises(IntegrityError, match="more than the 100"):
        raw.read_csv(path)


def test_an_incomplete_run_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path)
    for name in ("probe.json", "events.jsonl", "stdout", "stderr", "cpu.csv"):
        meta = json.loads((folder / "meta.json").read_text())
        other = {**meta, "files": {k: v for k, v in meta["files"].items() if k != name}}
        (folder / "meta.json").write_text(json.dumps(other))
        with pytest.raises(IntegrityError):
            raw.read_run(folder)
        (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "meta.json").unlink()
    with pytest.raises(IntegrityError, match=r"meta\.json is missing"):
        raw.read_run(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["probe.json", "events.jsonl", "cpu.csv", "wake.csv", "stdout"]),
    st.one_of(st.binary(max_size=300), st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=6))),
)
def test_damage_anywhere_is_an_error_of_ours(
    tmp_path: Path, name: str, damage: bytes | tuple[int, bytes]
) -> None:
    folder = tmp_path / KEY / "00"
    if not folder.exists():
        run(tmp_path)
    original = (folder / name).read_bytes()
    try:
        if isinstance(damage, bytes):
            rewrite(folder, name, damage)
        else:
            at, put = damage
            rewrite(folder, name, original[:at] + put + original[at + len(put) :])
        try:
            raw.read_run(folder)
        except PocketvlmError as error:
            assert len(str(error)) < 2000
    finally:
        rewrite(folder, name, original)


def test_hand_made_files_are_of_the_format() -> None:
    assert sensor_files(10**6, 0, current_ua=1)["wake.csv"].startswith(b"t_us,late_us\n0,100\n")
