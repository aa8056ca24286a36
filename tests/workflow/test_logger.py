"""What a person sees: the packaged logger plugin on a pipe, on a terminal, with failures, with Ctrl-C."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase

from snakemake_logger_plugin_pocketvlm import LogHandler

SNAKEMAKE = Path(sys.executable).with_name("snakemake")

SNAKEFILE = """\
from pocketvlm.errors import ConfigError
from pocketvlm.stage import clear_failures, plain_errors, report_failures

with plain_errors():
    if config.get("mistake"):
        raise ConfigError("the key 'modle' is not known", where="demo.yaml: cells.0", do="Use model")

onstart:
    clear_failures()

onerror:
    report_failures()

rule all:
    input: expand("results/{device}/run.txt", device=["pixel", "local"])

rule make_source:
    output: "results/source.txt"
    log: "results/logs/make_source.log"
    shell: "echo hello > {output} 2> {log}"

rule measure_block:
    input: "results/source.txt"
    output: "results/{device}/run.txt"
    log: "results/logs/measure_block.{device}.log"
    params: how=config.get("how", ""), runs=int(config.get("runs", 2))
    script: "measure_block.py"

rule pinned:
    output: ensure("results/pinned.txt", sha256="0" * 64)
    log: "results/logs/pinned.log"
    shell: "echo other > {output} 2> {log}"
"""

SCRIPT = """\
import sys
import time

if snakemake.params.how == "import":
    import nonesuch_module

from pocketvlm.errors import TransientDeviceError
from pocketvlm.stage import stage

with stage(snakemake) as log:
    for k in range(snakemake.params.runs):
        log.info("run %d of %d", k + 1, snakemake.params.runs)
        time.sleep(0.4)
    sys.stderr.write("a tool's own words\\n")  # in one piece: two jobs share the pipe
    if snakemake.params.how == "offline" and snakemake.wildcards.device == "pixel":
        raise TransientDeviceError("the phone does not answer", where="serial 1a2b", do="Plug it in again")
    with open(snakemake.output[0], "w") as stream:
        stream.write("measured")
"""

SENTENCE = (
    "measure_block on pixel failed: the phone does not answer (serial 1a2b). Plug it in again. "
    "Log: results/logs/measure_block.pixel.log"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "measure_block.py").write_text(SCRIPT)
    profile = Path(__file__).parents[2] / "profiles" / "default" / "config.yaml"
    (tmp_path / "profiles" / "default").mkdir(parents=True)
    (tmp_path / "profiles" / "default" / "config.yaml").write_text(profile.read_text())
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(SNAKEMAKE), "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def config(**values: object) -> list[str]:
    return ["--config", *(f"{key}={value}" for key, value in values.items())]


def on_terminal(folder: Path, *arguments: str, interrupt_at: str | None = None) -> tuple[int, str]:
    """Run Snakemake on a pseudo-terminal; press Ctrl-C once a text has appeared."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ["TERM"] = "xterm-256color"
        os.environ["COLUMNS"] = "120"
        os.execv(SNAKEMAKE, [str(SNAKEMAKE), "--cores", "2", *arguments])
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            data = os.read(master, 65536)
        except OSError as error:
            assert error.errno == errno.EIO  # how Linux reports that the other side closed
            break
        if not data:
            break
        seen += data
        if interrupt_at and interrupt_at.encode() in seen:
            os.write(master, b"\x03")
            interrupt_at = None
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), seen.decode()


def last_lines(text: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    return [line for line in plain.splitlines() if line.strip()]


class TestInterface(TestLogHandlerBase):
    """The interface's own tests: every event, and records that are none."""

    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> LogHandlerSettingsBase:
        return LogHandlerSettingsBase()


def test_snakemake_finds_the_plugin() -> None:
    assert LoggerPluginRegistry().is_installed("pocketvlm")


def test_on_a_pipe_each_event_is_one_plain_line(folder: Path) -> None:
    done = run(folder, "all")
    assert done.returncode == 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert "\x1b" not in done.stderr
    told = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]
    assert "4 jobs: 1 make_source, 2 measure_block, 1 all" in told
    assert "start measure_block pixel" in told
    assert "measure_block pixel: run 2 of 2" in told
    assert re.search(r"^done +measure_block pixel, \d+ s \([23] of 4\)$", "\n".join(told), re.MULTILINE)
    assert "a tool's own words" in told
    assert re.fullmatch(r"All 4 jobs done in \d+ s\.", told[-1])
    again = run(folder, "all")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr and "jobs done" not in again.stderr


def test_a_failure_s_sentence_is_the_last_line(folder: Path) -> None:
    done = run(folder, "all", *config(how="offline"))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1] == SENTENCE
    assert "Traceback" not in done.stderr and "CalledProcessError" not in done.stderr
    assert any(
        re.search(r"FAILED measure_block pixel after \d+ s, see results/logs/", line) for line in lines
    )
    assert not (folder / "results/pixel/run.txt").exists()
    # A later success forgets it, and a later failure elsewhere does not bring it back.
    assert run(folder, "all", *config(how="")).returncode == 0
    assert not list((folder / "results/logs/failures").iterdir())


def test_jobs_that_could_not_speak_are_explained(folder: Path) -> None:
    done = run(folder, "all", *config(how="import"))
    assert done.returncode == 1
    assert "No module named 'nonesuch_module'" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.search(
        r"measure_block (pixel|local) failed: .*Log: results/logs/measure_block\.(pixel|local)\.log", last
    )


def test_an_output_that_is_not_its_pin_is_named(folder: Path) -> None:
    done = run(folder, "pinned")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "pinned failed: " in last and "checksums that differ" in last and "pinned.log" in last
    assert not (folder / "results/pinned.txt").exists()


@pytest.mark.parametrize("option", [[], ["-n"], ["--lint"], ["--rulegraph"]])
def test_a_configuration_mistake_is_one_line(folder: Path, option: list[str]) -> None:
    done = run(folder, "all", *option, *config(mistake=1))
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last == "Configuration error: the key 'modle' is not known (demo.yaml: cells.0). Use model."
    assert "Traceback" not in done.stderr and "Snakefile" not in done.stderr


def test_a_dry_run_uses_snakemake_s_own_words(folder: Path) -> None:
    done = run(folder, "-n", "all")
    assert done.returncode == 0
    told = done.stdout + done.stderr
    assert "rule measure_block:" in told and "This was a dry-run" in told and "reason: " in told


def test_what_is_printed_for_programs_stays_intact(folder: Path) -> None:
    graph = run(folder, "--rulegraph")
    assert graph.returncode == 0
    assert graph.stdout.startswith("digraph snakemake_dag {") and graph.stdout.rstrip().endswith("}")
    listed = run(folder, "--list")
    assert listed.stdout.split() == ["all", "make_source", "measure_block", "pinned"]


def test_quiet_is_quiet(folder: Path) -> None:
    done = run(folder, "all", "--quiet", "all")
    assert done.returncode == 0
    assert "jobs" not in done.stderr and "start " not in done.stderr


def test_on_a_terminal_jobs_and_their_runs_are_shown_live(folder: Path) -> None:
    status, seen = on_terminal(folder, "all", *config(runs=4))
    assert status == 0
    assert "\x1b[2K" in seen  # redrawn in place
    assert re.search(r"measure_block pixel \d s .*run [1-4] of 4", seen)
    assert "a tool's own words" in seen
    assert "\x1epocketvlm" not in seen
    lines = last_lines(seen)
    assert re.fullmatch(r"All 4 jobs done in \d+ s\.", lines[-1])
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is back


def test_on_a_terminal_the_failure_s_sentence_is_last(folder: Path) -> None:
    status, seen = on_terminal(folder, "all", *config(how="offline"))
    assert status == 1
    assert last_lines(seen)[-1] == SENTENCE
    assert seen.count("the phone does not answer") == 1
    assert "Traceback" not in seen


def test_ctrl_c_ends_the_jobs_and_says_how_to_go_on(folder: Path) -> None:
    status, seen = on_terminal(folder, "all", *config(runs=100), interrupt_at="run 2 of 100")
    assert status != 0
    lines = last_lines(seen)
    assert "Interrupted." in lines[-1] and "Traceback" not in seen
    assert "interrupted" in (folder / "results/logs/measure_block.pixel.log").read_text()
    assert not list((folder / "results").glob("*/run.txt"))
