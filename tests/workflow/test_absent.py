"""What cannot be measured is a row with the reason: the published study without its phone, and a phone that
comes, goes and comes back."""

from __future__ import annotations

import csv
import socket
import threading
from collections.abc import Iterator

import pytest
import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.emulated.lease import lease
from tests.adb_server import FakeServer
from tests.experiments import cell_text, experiment_text

from .conftest import Project

pytestmark = pytest.mark.slow

DONE = "Nothing to be done"

VISIT = experiment_text(
    "a phone that comes and goes",
    cell_text(device="pixel"),
    cell_text(device="pixel", framework="mllm", version="unstated", quantisation="Q4_K", settings="{}"),
    absent="row",
)


class Cable(FakeServer):
    """An adb server that knows no phone, or, while the cable is in, is the one that `port` has."""

    def __init__(self) -> None:
        super().__init__("")
        self.behind: int | None = None

    def _serve(self, connection: socket.socket) -> None:
        if self.behind is None:
            super()._serve(connection)
            return
        with socket.create_connection(("127.0.0.1", self.behind)) as server:
            back = threading.Thread(target=_pump, args=(server, connection), daemon=True)
            back.start()
            _pump(connection, server)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def cable() -> Iterator[Cable]:
    server = Cable()
    yield server
    server.close()


def table(project: Project, experiment: str) -> list[dict[str, str]]:
    with (project.path / f"results/{experiment}/tables/cells.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_study_without_phone_weights_and_frameworks_is_rows_with_reasons(project: Project, cable: Cable):
    project.edit("config/devices/oneplus13r.yaml", "server_port: 5037", f"server_port: {cable.port}")
    done = project.snakemake("all", experiment="paper")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = table(project, "paper")
    assert len({row["cell"] for row in rows}) == 4
    assert {(row["n"], row["median"]) for row in rows} == {("0", "")}
    absent = f"no phone is connected: adb on port {cable.port} knows none"
    for row in rows:
        own, _, device = row["gate"].rpartition("; ")
        assert device == absent
        lacks = "is not locked: run snakemake" if row["framework"] == "llama.cpp" else "is not provisioned"
        assert lacks in own
    results = project.path / "results"
    assert not (results / "raw").exists()
    assert not (results / "weights").exists()
    assert not (results / "bundles").exists()
    page = (results / "paper/report/index.html").read_text()
    assert absent in page
    for name in ("table1.csv", "table2.tex", "table3.md"):
        assert (results / f"paper/tables/paper_{name}").stat().st_size > 0
    for number in (1, 2, 3, 4):
        assert (results / f"paper/figures/paper_figure{number}.svg").stat().st_size > 0
    assert DONE in project.snakemake("all", "-n", experiment="paper").stdout
    checked = project.snakemake("verify", experiment="paper")
    assert checked.returncode == 0, checked.stdout[-2000:]
    again = project.snakemake("remeasure", experiment="paper")
    assert again.returncode != 0
    assert "nothing can be measured on oneplus13r: no phone is connected" in again.stdout


def test_the_shapes_of_the_study_are_a_graph(project: Project):
    planned = project.snakemake("all", "-n", experiment="paper-shapes")
    assert planned.returncode == 0, planned.stdout[-4000:]
    assert "measure_block" in planned.stdout


def test_an_experiment_that_refuses_says_what_is_missing(project: Project, cable: Cable):
    project.edit("config/devices/oneplus13r.yaml", "server_port: 5037", f"server_port: {cable.port}")
    project.edit("config/experiments/paper.yaml", "absent: row", "absent: refuse")
    done = project.snakemake("all", "-n", experiment="paper")
    assert done.returncode == 1
    assert "mllm is not provisioned" in done.stdout
    assert "absent: row" in done.stdout


@pytest.fixture
def phone(project: Project, cable: Cable) -> Iterator[AdbDevice]:
    """A phone behind a real adbd whose programs are this machine's, described in the project as `pixel`."""
    emulated = yaml.safe_load((project.path / "config/devices/emulated-phone.yaml").read_text())
    emulated["emulated"]["folder"] = str(project.path / "phone")
    with lease({**emulated, "exec_prefix": []}) as device:
        described = {
            **{name: emulated[name] for name in ("host_cores", "periods_ms")},
            "id": "pixel",
            "kind": "phone",
            "target": host_target(),
            "transport": {"serial": device.serial, "server_port": cable.port},
            "remote_dir": device.remote_dir,
            "sysfs_root": device.sysfs_root,
            "exec_prefix": [],
        }
        (project.path / "config/devices/pixel.yaml").write_text(yaml.safe_dump(described))
        (project.path / "config/experiments/visit.yaml").write_text(VISIT)
        yield device


def counts(project: Project) -> dict[str, str]:
    """How many runs the duration of a whole run comes from, by framework."""
    rows = table(project, "visit")
    return {
        row["framework"]: row["n"] for row in rows if (row["phase"], row["metric"]) == ("run", "duration")
    }


def everything(project: Project) -> str:
    done = project.snakemake("all", experiment="visit")
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.phone
def test_a_phone_is_measured_when_it_comes_and_keeps_its_runs_when_it_goes(
    project: Project, cable: Cable, phone: AdbDevice
):
    everything(project)
    assert counts(project) == {"llama.cpp": "0", "mllm": "0"}
    assert all(
        f"no phone with serial {phone.serial} is connected" in row["gate"] for row in table(project, "visit")
    )
    assert project.raw_runs(None) == {}

    cable.behind = phone.server_port
    everything(project)
    assert counts(project) == {"llama.cpp": "2", "mllm": "0"}
    measured = project.raw_runs(None)
    assert DONE in project.snakemake("all", "-n", experiment="visit").stdout

    cable.behind = None
    assert DONE in project.snakemake("all", "-n", experiment="visit").stdout
    # What is missing cannot be measured now; what was measured stays.
    project.edit("config/experiments/visit.yaml", "repeats: 2", "repeats: 3")
    everything(project)
    assert project.raw_runs(None) == measured
    assert counts(project) == {"llama.cpp": "2", "mllm": "0"}

    cable.behind = phone.server_port
    everything(project)
    assert counts(project) == {"llama.cpp": "3", "mllm": "0"}
    assert measured.items() < project.raw_runs(None).items()
    assert len(project.index("visit", "pixel")) == 3


def test_a_cell_that_does_not_fit_into_the_memory_is_a_row_and_the_others_are_measured(project: Project):
    """A batch whose attention would take half a terabyte; nothing of that cell is pushed or run."""
    path = project.path / "config/experiments/micro.yaml"
    text = yaml.safe_load(path.read_text())
    text["cells"][1]["settings"] = {"threads": 1, "context": 1 << 20, "batch": 1 << 16, "ubatch": 1 << 16}
    path.write_text(yaml.safe_dump(text))
    refused = project.snakemake("results/micro/blocks/local.json")
    assert refused.returncode != 0
    assert "the workload does not fit into local: it needs" in refused.stdout
    assert project.raw_runs(None) == {}

    path.write_text(yaml.safe_dump({**text, "absent": "row"}))
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-4000:]
    whole = [row for row in table(project, "micro") if (row["phase"], row["metric"]) == ("run", "duration")]
    assert [row["n"] for row in whole] == ["2", "0"]
    assert "GB of memory (weights" in whole[1]["gate"]
    assert {run["role"] for run in project.raw_runs(None).values()} == {"idle", "warmup", "measured"}
    assert len(project.raw_runs("measured")) == 2
    page = (project.path / "results/micro/report/index.html").read_text()
    assert "GB of memory (weights" in page
    assert project.snakemake("verify").returncode == 0
