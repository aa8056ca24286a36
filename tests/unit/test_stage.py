"""A job's log, its failure sentence, and its end when the workflow ends."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm import stage as under_test
from pocketvlm.errors import ConfigError, TransientDeviceError
from pocketvlm.stage import clean, clear_failures, decode_progress, encode_progress, failures, stage


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(under_test.PROGRESS_VARIABLE, raising=False)
    yield


def job(rule: str = "measure_block", **wildcards: str) -> SimpleNamespace:
    name = ".".join([rule, *wildcards.values()])
    return SimpleNamespace(rule=rule, wildcards=wildcards, params={}, log=[f"results/logs/{name}.log"])


def fail(snakemake: SimpleNamespace, error: BaseException) -> int:
    with pytest.raises(SystemExit) as ended, stage(snakemake):
        raise error
    assert isinstance(ended.value.code, int)
    return ended.value.code


def log_of(snakemake: SimpleNamespace) -> str:
    return Path(snakemake.log[0]).read_text()


def test_lines_go_to_the_log_with_a_time_and_to_the_person_with_the_job(
    capfd: pytest.CaptureFixture[str],
) -> None:
    snakemake = job(device="pixel")
    with stage(snakemake) as log:
        log.info("run %d of %d", 3, 12)
        log.debug("only for the log")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("measure_block pixel: run 3 of 12\n") and err.count("\n") == 1
    text = log_of(snakemake)
    assert "INFO run 3 of 12" in text and "DEBUG only for the log" in text
    assert all(line[:4].isdigit() and line[10] == "T" for line in text.splitlines())


def test_the_library_s_own_loggers_are_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with stage(job()):
        logging.getLogger("pocketvlm.devices.adb").warning("slow cable")
    assert "warning: slow cable" in capfd.readouterr().err


def test_warnings_of_libraries_go_to_the_log_only(capfd: pytest.CaptureFixture[str]) -> None:
    snakemake = job()
    with stage(snakemake):
        warnings.warn("deprecated thing", DeprecationWarning, stacklevel=1)
    assert "deprecated thing" in log_of(snakemake)
    assert "deprecated" not in capfd.readouterr().err


def test_an_expected_error_ends_with_one_sentence_and_a_record(capfd: pytest.CaptureFixture[str]) -> None:
    snakemake = job(device="pixel")
    error = TransientDeviceError("the phone does not answer", where="serial 1a2b", do="Plug it in again")
    assert fail(snakemake, error) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err and err.count("\n") == 1
    sentence = (
        "measure_block on pixel failed: the phone does not answer (serial 1a2b). Plug it in again. "
        "Log: results/logs/measure_block.pixel.log"
    )
    assert sentence in err
    assert failures() == [sentence]
    record = json.loads(Path("results/logs/failures/measure_block.pixel.json").read_text())
    assert record["error"] == "TransientDeviceError" and record["device"] == "pixel"
    assert record["wildcards"] == {"device": "pixel"}
    assert "Traceback" in log_of(snakemake) and "raise error" in log_of(snakemake)


def test_an_unexpected_error_is_called_a_bug_and_keeps_its_traceback_for_the_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    snakemake = job("parse_block")
    assert fail(snakemake, KeyError("phase")) == 1
    err = capfd.readouterr().err
    assert "KeyError: 'phase'" in err and "bug" in err and "Traceback" not in err
    assert "Traceback" in log_of(snakemake)


def test_text_of_a_device_cannot_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 line\nbreak \u202e" + "x" * 5000
    snakemake = job(device="pixel")
    assert fail(snakemake, TransientDeviceError(hostile, do="Look")) == 1
    err = capfd.readouterr().err
    assert not any(c in err for c in "\x1b\x07\u202e") and err.count("\n") == 1 and len(err) < 1500
    assert not any(c in log_of(snakemake) for c in "\x1b\x07\u202e")


def test_success_forgets_the_failure_before_it() -> None:
    snakemake = job(device="pixel")
    fail(snakemake, TransientDeviceError("gone", do="Plug it in"))
    with stage(snakemake):
        pass
    assert failures() == []


def test_failures_come_oldest_first_and_are_cleared() -> None:
    for device in ("b", "a"):
        fail(job(device=device), TransientDeviceError("gone", do="Plug it in"))
        time.sleep(0.002)
    assert [text.split()[2] for text in failures()] == ["b", "a"]
    assert under_test.recorded_logs() == {
        "results/logs/measure_block.a.log",
        "results/logs/measure_block.b.log",
    }
    clear_failures()
    assert failures() == []


def test_an_unreadable_record_is_told_not_hidden() -> None:
    folder = Path("results/logs/failures")
    folder.mkdir(parents=True)
    (folder / "x.json").write_text("{half")
    assert len(failures()) == 1 and "x.json" in failures()[0]


def test_wildcards_cannot_lead_a_record_out_of_its_folder() -> None:
    snakemake = job(cell="../../../etc/passwd")
    snakemake.log = ["results/logs/x.log"]
    fail(snakemake, TransientDeviceError("gone", do="Plug it in"))
    (record,) = Path("results/logs/failures").iterdir()
    assert record.name.startswith("measure_block..._") and len(failures()) == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (SystemExit(7), 7)])
def test_an_interruption_is_no_failure(error: BaseException, status: int) -> None:
    assert fail(job(), error) == status
    assert failures() == []


def test_handlers_and_signals_are_given_back() -> None:
    logger = logging.getLogger("pocketvlm")
    before = (list(logger.handlers), logger.level, logger.propagate, signal.getsignal(signal.SIGTERM))
    with stage(job()):
        assert logger.handlers != before[0]
    assert (
        list(logger.handlers),
        logger.level,
        logger.propagate,
        signal.getsignal(signal.SIGTERM),
    ) == before


def test_plain_errors_print_key_and_fix_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, under_test.plain_errors():
        raise ConfigError(
            "the key 'modle' is not known", where="demo.yaml: cells.0", do="Did you mean model?"
        )
    assert ended.value.code == 1
    assert capfd.readouterr().err == (
        "Configuration error: the key 'modle' is not known (demo.yaml: cells.0). Did you mean model?.\n"
    )


@given(st.text(), st.integers(1, 50))
def test_clean_text_is_short_and_harmless(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit + 1
    assert all(c.isprintable() or c == " " for c in shown.replace("\N{REPLACEMENT CHARACTER}", ""))


@given(st.text(max_size=20), st.sampled_from(["info", "warning", "failure"]), st.text(max_size=3000))
def test_progress_lines_fit_a_pipe_and_come_back(log: str, level: str, text: str) -> None:
    line = encode_progress(log, level, text)
    assert len(line.encode()) <= 4096 and line.count("\n") == 1
    decoded = decode_progress(line.rstrip("\n"))
    assert decoded is not None
    assert decoded[:2] == (log, level) and text.startswith(decoded[2])


@pytest.mark.parametrize("line", ["", "hello", "\x1epocketvlm {half", "\x1epocketvlm []"])
def test_other_lines_are_no_progress(line: str) -> None:
    assert decode_progress(line) is None


def test_with_a_display_lines_are_structured(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(under_test.PROGRESS_VARIABLE, "1")
    with stage(job(device="pixel")) as log:
        log.info("run 1 of 2")
    decoded = decode_progress(capfd.readouterr().err.rstrip("\n"))
    assert decoded == ("results/logs/measure_block.pixel.log", "info", "run 1 of 2")


JOB = textwrap.dedent(
    """
    import sys, time
    from types import SimpleNamespace
    from pocketvlm.stage import stage
    with stage(SimpleNamespace(rule="measure", wildcards={}, params={}, log=["results/logs/m.log"])):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            open("given-back", "w").close()
    """
)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_unwinds_the_job(number: signal.Signals, status: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", JOB], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, err = child.communicate(timeout=20)
    assert child.returncode == status
    assert Path("given-back").exists() and err == ""


def test_a_job_ends_when_its_workflow_is_killed(tmp_path: Path) -> None:
    """A parent named snakemake starts the job through a shell, as Snakemake does, and is killed."""
    program = tmp_path / "snakemake"
    program.write_text(
        "import subprocess, sys\n"
        "subprocess.run(['bash', '-c', 'set -e; ' + sys.executable + ' job.py; true'])\n"
    )
    (tmp_path / "job.py").write_text(JOB)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as workflow:
        assert workflow.stdout is not None and workflow.stdout.readline() == "ready\n"
        began = int(Path("results/logs/m.log").read_text().split("process ")[1].split()[0])
        workflow.kill()
        deadline = time.monotonic() + 20
        while not Path("given-back").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        gone = Path("given-back").exists()
        if not gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(began, signal.SIGKILL)
    assert gone
    assert "is gone" in Path("results/logs/m.log").read_text()


def test_a_full_disk_is_no_bug_and_is_told_although_no_record_can_be_written(capfd) -> None:
    snakemake = job("parse_block")
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    assert fail(snakemake, OSError(errno.ENOSPC, "No space left on device", "results/x.parquet")) == 1
    printed = capfd.readouterr().err
    assert (
        "parse_block failed: this machine's disk is full: No space left on device (results/x.parquet)"
        in printed
    )
    assert "Free space there" in printed
    assert "Traceback" not in printed
    assert "bug" not in printed
