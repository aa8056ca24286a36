"""Hostile names, prompts and output through the whole path; what listens meanwhile, what is left behind."""

from __future__ import annotations

import csv
import gzip
import html.parser
import json
import re
import socket
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from pocketvlm.devices import adb_server, open_device
from pocketvlm.devices.folder import MARK

from .hostile import IMAGE, LONG, PROMPT, HostileStudy, tree
from .test_emulated_phone import internet_sockets, sockets_of, unexplained, vsock_listeners

pytestmark = [pytest.mark.phone, pytest.mark.slow]

PHONE, LOCAL = "hostile-phone", "hostile-local"


class Watch:
    """Every listening socket of a process and all below it, as long as the block lasts.

    Attributes:
        seen: table, address and command of each.
        strange: inodes of sockets that are of no family that is expected, seen in two looks.
    """

    def __init__(self, process: int) -> None:
        self._root, self._stop = psutil.Process(process), threading.Event()
        self.seen: set[tuple[str, str, str]] = set()
        self.strange: set[int] = set()
        self.looks = 0
        self._before: set[int] = set()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self._look(processes)

    def _look(self, processes: list[psutil.Process]) -> None:
        self.looks += 1
        odd: set[int] = set()
        for process in processes:
            try:
                held = sockets_of({process.pid: ""})
                command = " ".join(process.cmdline())
            except (OSError, psutil.Error):
                continue
            known = internet_sockets()
            for table, address, _, listens in map(known.__getitem__, held & known.keys()):
                if listens:
                    self.seen.add((table, address, command))
            odd |= unexplained(held)
            odd |= (vsock_listeners() or set()) & held
        # A socket may come between the looks at descriptors and at tables; one that stays is of another kind.
        self.strange |= odd & self._before
        self._before = odd


def loopback(address: str) -> bool:
    plain = address.removeprefix("::ffff:")
    return plain == "::1" or plain.startswith("127.")


@dataclass
class Ran:
    """The hostile study after `all`, and what was seen of it.

    Attributes:
        before: paths of the phone outside its remote_dir before anything was measured.
        files: paths of the working copy before.
    """

    study: HostileStudy
    status: int
    output: str
    watch: Watch
    before: set[str]
    files: set[str] = field(default_factory=set)

    @property
    def results(self) -> Path:
        return self.study.project.path / "results"


def tree_of_phone(study: HostileStudy) -> set[str]:
    return tree(study.phone, without=[study.remote])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    study = HostileStudy(tmp_path_factory.mktemp("hostile"))
    device = yaml.safe_load((study.project.path / f"config/devices/{PHONE}.yaml").read_text())
    with open_device(device, results=study.phone.parent):
        pass
    before, files = tree_of_phone(study), tree(study.project.path)
    with (
        study.project.start(*study.words("all"), experiment="hostile") as process,
        Watch(process.pid) as watch,
    ):
        output, _ = process.communicate(timeout=1800)
    return Ran(study, process.returncode, output, watch, before, files)


def test_hostile_names_and_output_reach_the_report(ran: Ran) -> None:
    assert ran.status == 0, ran.output[-4000:]
    assert (ran.results / "hostile/report/index.html").is_file()
    assert len(ran.study.project.raw_runs()) == 4


def test_no_command_ran(ran: Ran) -> None:
    canaries = [*ran.study.project.path.parent.rglob("canary*"), *Path.cwd().glob("canary*")]
    canaries += [*Path.home().glob("canary*"), *Path("/").glob("canary*")]
    assert canaries == []


def test_the_program_got_each_argument_as_it_is(ran: Ran) -> None:
    found = [*ran.study.remote.rglob("argv"), *ran.study.local.rglob("argv")]
    assert len(found) == 2
    for path in found:
        argv = path.read_bytes().decode().split("\0")
        prompt = argv[argv.index("--prompt") + 1]
        assert prompt in (f"<__media__>\n{PROMPT.strip()}", f"{PROMPT.strip()}\n<__media__>")
        image = argv[argv.index("--image") + 1]
        assert Path(image).name == IMAGE and Path(image).is_file()
        assert ran.study.remote in Path(image).parents or ran.study.local in Path(image).parents


def unclean(text: str) -> set[str]:
    """The characters that steer a terminal or hide text, but for line ends and tabs."""
    return {c for c in text if c not in "\n\t" and unicodedata.category(c)[0] == "C"}


def own_words(ran: Ran, text: str) -> str:
    """A text without the path of the working copy, which whoever chose it has to bear."""
    return text.replace(str(ran.study.project.path), "")


def test_the_terminal_and_the_logs_are_clean(ran: Ran) -> None:
    assert unclean(own_words(ran, ran.output)) == set()
    assert "forged" not in ran.output
    logs = [path for path in (ran.results / "logs").rglob("*") if path.is_file()]
    assert len(logs) > 10
    for path in logs:
        if "build" not in path.name:
            assert unclean(own_words(ran, path.read_text())) == set(), path.name


class Page(html.parser.HTMLParser):
    """What a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_shows_hostile_text_as_text(ran: Ran) -> None:
    path = ran.results / "hostile/report/index.html"
    text = path.read_text()
    page = Page(text)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    runnable = [each for each in scripts if each.get("type") != "application/json"]
    assert len(runnable) == 1
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action", "xlink:href"):
            value = (attributes.get(name) or "").strip().lower()
            assert not value.startswith(("javascript:", "http:", "//")), value
    shown = "".join(page.texts)
    for words in (
        "<script>alert(1)</script><img src=x",
        "<script>alert(4)</script>",
        "=cmd|",
        "<img src=x onerror",
    ):
        assert words in shown, words
    assert unclean(text) == set()
    assert path.stat().st_size < 5_000_000


def test_tables_are_well_formed_and_begin_no_formula(ran: Ran) -> None:
    tables = sorted((ran.results / "hostile/tables").glob("*.csv"))
    assert {path.name for path in tables} >= {"cells.csv", "ledger.csv", "self_audit.csv"}
    for path in tables:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, strict=True))
        assert rows and {len(row) for row in rows} == {len(rows[0])}, path.name
        for cell in (cell for row in rows for cell in row):
            assert unclean(cell) == set()
            assert not cell.startswith(("=", "@", "+", "\t")), f"{path.name}: {cell[:80]!r}"


def test_exports_are_well_formed(ran: Ran) -> None:
    folder = ran.results / "hostile/tables"
    tex, markdown = (folder / "cells.tex").read_text(), (folder / "cells.md").read_text()
    assert not re.search(r"\\(input|write18|include|openin|catcode)\b", tex)
    assert tex.count(r"\begin{") == tex.count(r"\end{")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert rows and len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert "<script" not in markdown
    traces = sorted((ran.results / "hostile/traces").rglob("*.json.gz"))
    assert len(traces) == 4
    for path in traces:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        assert unclean(text) == set()
        json.loads(text)


def test_what_the_model_said_is_kept_as_it_was(ran: Ran) -> None:
    """Cleaned is what a person sees; the raw record has every byte."""
    for run in ran.study.project.raw_runs():
        said = (ran.results / "raw" / run / "stdout").read_bytes()
        assert b"\x1b]0;owned\x07" in said and b"a\0b\xff\xfe\x80" in said
        assert said.count(b"A" * LONG) == 1


def test_nothing_listened_beyond_loopback(ran: Ran) -> None:
    assert ran.watch.looks > 20
    commands = {command for _, _, command in ran.watch.seen}
    assert any("adbd" in command for command in commands), "the phone's own sockets were not seen"
    assert any("nodaemon server" in command for command in commands)
    assert [each for each in ran.watch.seen if not loopback(each[1])] == []
    assert ran.watch.strange == set()


def test_nothing_is_left_outside_the_devices_folder(ran: Ran) -> None:
    assert (ran.study.remote / MARK).is_file()
    assert any(ran.study.remote.rglob("llama-mtmd-cli"))
    assert tree_of_phone(ran.study) - ran.before == set()
    project = ran.study.project.path
    new = {path for path in tree(project) - ran.files if not path.startswith(("results", ".snakemake"))}
    assert {path for path in new if "__pycache__" not in path} == set()


def test_the_devices_are_cleaned_and_nothing_else_is(ran: Ran) -> None:
    study = ran.study
    (study.remote / "runs" / "way out").symlink_to(study.project.path / "config")
    (study.local / "tmp" / "way out").symlink_to(study.project.path / "config")
    kept = tree(
        study.project.path, without=[study.local, study.project.path / ".snakemake", ran.results / "logs"]
    )
    dry = study.project.snakemake(*study.words("clean_device"), "-n", experiment="hostile")
    assert dry.returncode == 0 and study.remote.is_dir() and study.local.is_dir()
    sizes = {
        PHONE: sum(
            path.lstat().st_size
            for path in study.remote.rglob("*")
            if not path.is_dir() and path.name != MARK
        ),
    }
    done = study.project.snakemake(*study.words("clean_device"), experiment="hostile")
    assert done.returncode == 0, done.stdout
    for name in (PHONE, LOCAL):
        assert re.search(rf"{name}: removed .*: \d+ files, [0-9.]+ (MB|bytes)", done.stdout), done.stdout
    assert f"{sizes[PHONE] / 1e6:.1f} MB" in done.stdout or f"{sizes[PHONE]} bytes" in done.stdout
    assert not study.remote.exists() and not study.local.exists()
    assert study.remote.parent.is_dir()
    assert tree_of_phone(study) - ran.before == set()
    assert kept - tree(study.project.path) == set()
    assert unclean(own_words(ran, done.stdout)) == set()

    again = study.project.snakemake(*study.words("clean_device"), experiment="hostile")
    assert again.returncode == 0 and again.stdout.count("nothing of pocketvlm was in") == 2

    runs = study.project.raw_runs(None)
    after = study.project.snakemake(*study.words("all"), experiment="hostile")
    assert after.returncode == 0 and study.project.raw_runs(None) == runs
    # One run more pushes again and measures what lacks, no more.
    study.project.edit("config/experiments/hostile.yaml", "repeats: 2", "repeats: 3")
    more = study.project.snakemake(*study.words("all"), experiment="hostile")
    assert more.returncode == 0, more.stdout[-3000:]
    assert len(study.project.raw_runs()) == 6 and runs.keys() < study.project.raw_runs(None).keys()
    assert (study.remote / MARK).is_file() and any(study.remote.rglob("llama-mtmd-cli"))


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    yield port
    kill = [str(adb_server.adb_program()), "-P", str(port), "kill-server"]
    subprocess.run(kill, capture_output=True, timeout=30)


@pytest.mark.parametrize("variable", [None, "tcp:0.0.0.0:{port}", "tcp:{port}", "tcp:192.0.2.1:5037"])
def test_an_adb_server_that_we_start_listens_on_loopback(
    free_port: int, variable: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the user's environment says: multicast DNS on, a server elsewhere, one for the network."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ADB_MDNS", "1")
    monkeypatch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
    if variable is not None:
        monkeypatch.setenv("ADB_SERVER_SOCKET", variable.format(port=free_port))
    assert adb_server.start_server(free_port) is True
    owners = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "fork-server" in (process.info["cmdline"] or [])
        and str(free_port) in " ".join(process.info["cmdline"])
    ]
    assert len(owners) == 1, [process.info for process in owners]
    known, held = internet_sockets(), sockets_of({owners[0].pid: ""})
    listening = {entry[:3] for entry in map(known.__getitem__, held & known.keys()) if entry[3]}
    assert listening == {("tcp", "127.0.0.1", free_port)}
    assert unexplained(held) == set()
