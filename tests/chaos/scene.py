"""One fault's stage: a copy of the finished project, the start it strikes, and the start after it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pocketvlm.provenance import sha256_file
from pocketvlm.stage import failures
from tests.chaos.phone import Phone, below
from tests.project import Project

# A device of its own: another that is started meanwhile is not this one.
EXPERIMENT, DEVICE = "chaos", "chaos-phone"
TABLE = f"results/{EXPERIMENT}/tables/cells.csv"
LOG = f"results/logs/{EXPERIMENT}.measure_block.{DEVICE}.log"
_POINT_SECONDS = 90.0
_START_SECONDS = 180.0
_GONE_SECONDS = 15.0


class MissedError(Exception):
    """The moment to inject a fault at went by unseen."""


class Start:
    """A start of the workflow that runs while a fault is injected."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        # A killed group may leave the pipe open for a moment in what survives it.
        for line in self.process.stdout:
            self.output += line

    def wait(self) -> int:
        """Wait until it has ended and return its exit status; negative when a signal ended it."""
        status = self.process.wait(_START_SECONDS)
        self._reader.join(5)
        return status


class Scene:
    """A project on whose phone nothing was measured yet, and everything else is built.

    Attributes:
        project: the working copy.
        phone: its emulated phone.
        sentence: what the person was told by the start that the fault struck; empty when it did not fail.
        shown: what the tables say where the fault would have made a wrong number.
        noticed_s: seconds from the injection to the end of that start.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.phone = Phone(project.path / "phone")
        self.started: Start | None = None
        self.sentence = ""
        self.status: int | None = None
        self.injected: float | None = None
        self.noticed_s: float | None = None
        self.shown = ""
        self._expected: list[Callable[[], str]] = []
        self._undo = contextlib.ExitStack()
        self._at_end = contextlib.ExitStack()

    @property
    def path(self) -> Path:
        """The project's folder."""
        return self.project.path

    def later(self, action: Callable[[], object]) -> None:
        """Do something before the next start: take away what a fault left that a person would take away."""
        self._undo.callback(action)

    def mend(self) -> None:
        """Take away what the fault left."""
        self._undo.close()

    def at_end(self, action: Callable[[], object]) -> None:
        """Do something when the experiment is finished: end what stood beside the workflow all the time."""
        self._at_end.callback(action)

    def expect(self, check: Callable[[], str]) -> None:
        """Check something more when the experiment is finished; what it returns is what the tables show."""
        self._expected.append(check)

    def check_expected(self) -> None:
        """Check what this fault in particular must not do."""
        for check in self._expected:
            self.shown = self.shown or check()

    def leave(self) -> None:
        """End what stood beside the workflow."""
        self._at_end.close()

    def start(self, *targets: str) -> Start:
        """Start the workflow up to the table of cells, or to other targets."""
        self.started = Start(self.project.start(*(targets or (TABLE,)), experiment=EXPERIMENT))
        return self.started

    def hit(self) -> None:
        """Take note that the fault is there from now on."""
        if self.injected is None:
            self.injected = time.monotonic()

    def end(self) -> int:
        """Wait for the start that was struck, and keep what it told the person."""
        assert self.started is not None
        if self.status is not None:
            return self.status
        self.status = self.started.wait()
        if self.injected is not None:
            self.noticed_s = time.monotonic() - self.injected
        if self.status:
            # A full disk takes no record of a failure.
            printed = re.findall(r"^(?:[0-9:]{8} )?(\w+(?: on .*)? failed: .*)$", self.output(), re.MULTILINE)
            self.sentence = " ".join(failures(self.path / "results") or printed[-1:])
        return self.status

    def close(self) -> None:
        """End a start that is still under way, as after a failed assertion."""
        if self.started is not None and self.started.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.started.process.pid, signal.SIGKILL)
            self.started.wait()

    def output(self) -> str:
        """What the start has printed."""
        return "" if self.started is None else self.started.output

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until a moment of the start under way has come, looking every half a millisecond."""
        assert self.started is not None
        deadline = time.monotonic() + _POINT_SECONDS
        while not reached():
            ended = self.started.process.poll()
            if ended is not None:
                raise MissedError(f"{what} never came, the start ended with {ended}: {self.started.output}")
            assert time.monotonic() < deadline, f"{what} did not come in {_POINT_SECONDS:g} s"
            time.sleep(0.0005)

    def log(self) -> str:
        """What the log of the block says so far."""
        with contextlib.suppress(OSError):
            return (self.path / LOG).read_text()
        return ""

    def reach(self, point: str) -> None:
        """Start the workflow if it was not, and wait for a point of the block (see `POINTS`)."""
        if self.started is None:
            self.start()
        POINTS[point](self)

    @contextlib.contextmanager
    def held(self, point: str) -> Iterator[None]:
        """Reach a point and let the phone's adbd stand still there, so that nothing goes on meanwhile."""
        self.reach(point)
        self.phone.signal("adbd", signal.SIGSTOP)
        adbd = self.phone.process("adbd")
        if point == "push":
            part = self.phone.part()
            sizes = {path.stat().st_size for path in self.pushed()}
            if part is None or part.stat().st_size in sizes:
                raise MissedError("the push was over before it was seen")
        elif point == "pull" and self.phone.run_folder() is None:
            raise MissedError("the pull was over before it was seen")
        yield
        if adbd is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(adbd, signal.SIGCONT)

    def pushed(self) -> list[Path]:
        """The files that the block brings to the phone, as far as they are large."""
        results = self.path / "results"
        return [*results.glob("bundles/*aarch64*/bin/*"), *results.glob("weights/*/*.gguf")]

    def program(self) -> Path:
        """The framework's program, of this project alone: the copies share that of the cache."""
        (bundle,) = (self.path / "results/bundles").glob("llama.cpp-*-aarch64-*")
        if bundle.is_symlink():  # made for this project, and moved to the cache whole
            source = bundle.resolve()
            bundle.unlink()
            shutil.copytree(source, bundle)
        elif (bundle / "bin").is_symlink():  # taken from the cache
            for name in ("bin", "manifest.json"):
                source = (bundle / name).resolve()
                (bundle / name).unlink()
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, bundle / name)
        return bundle / "bin/llama-mtmd-cli"

    def replace_program(self, content: bytes) -> None:
        """Put another program in the framework's place until `mend`, as a broken build would."""
        program = self.program()
        manifest = program.parents[1] / "manifest.json"
        kept = {path: path.read_bytes() for path in (program, manifest)}

        def restore() -> None:
            for path, before in kept.items():
                path.write_bytes(before)

        self._write_program(content)
        self.later(restore)

    def pad_program(self, size: int) -> None:
        """Make the framework's program longer, for good, so that its push takes a while."""
        program = self.program()
        self._write_program(program.read_bytes() + bytes(size))

    def _write_program(self, content: bytes) -> None:
        program = self.program()
        before = sha256_file(program)
        program.write_bytes(content)
        manifest = program.parents[1] / "manifest.json"
        manifest.write_text(manifest.read_text().replace(before, sha256_file(program)))

    def already_pushed(self) -> None:
        """Let the phone have what an earlier block pushed to it."""
        (self.path / "phone/.local").rename(self.path / "phone/data/local")

    def edit_experiment(self, old: str, new: str) -> None:
        """Change the experiment's file until `mend`."""
        path = self.path / f"config/experiments/{EXPERIMENT}.yaml"
        before = path.read_text()
        self.project.edit(f"config/experiments/{EXPERIMENT}.yaml", old, new)
        self.later(lambda: path.write_text(before))

    def gone(self) -> dict[int, str]:
        """Wait until no process works in the project any more; those that still do after a while."""
        deadline = time.monotonic() + _GONE_SECONDS
        while (left := below(self.path)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def _says(words: str) -> Callable[[Scene], bool]:
    pattern = re.compile(words)
    return lambda scene: pattern.search(scene.log()) is not None


def _pushing(scene: Scene) -> None:
    def some() -> bool:
        part = scene.phone.part()
        with contextlib.suppress(OSError):
            return part is not None and part.stat().st_size > 1 << 20
        return False

    scene.until(some, "a push")


def _running(scene: Scene) -> None:
    scene.until(lambda: _says(r"run 2 of 2, measured")(scene) and scene.phone.workload() is not None, "a run")
    time.sleep(0.7)


def _pulling(scene: Scene) -> None:
    scene.until(lambda: _says(r"run 2 of 2, measured")(scene), "the run")
    drafts = scene.path / "results/raw/.drafts"
    scene.until(lambda: any(drafts.glob("*/run")), "a pull")


def _idling(scene: Scene) -> None:
    scene.until(lambda: _says(r"run 1 of 2, idle")(scene), "the idle run")
    time.sleep(0.4)


POINTS: dict[str, Callable[[Scene], None]] = {
    "push": _pushing,
    "idle": _idling,
    "between runs": lambda scene: scene.until(
        lambda: _says(r"run 1 of 2 done")(scene), "the first run's end"
    ),
    "run": _running,
    "pull": _pulling,
    "phone is up": lambda scene: scene.until(scene.phone.runs.is_dir, "the phone"),
}
"""The points of a block, by name: each waits until the start under way is there."""
