"""Which devices are not there, and what becomes of their cells."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import study
from pocketvlm.devices import absence
from pocketvlm.devices.adb_server import not_connected
from pocketvlm.devices.identify import identify
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError
from pocketvlm.measure.absence import NOTHING_TO_MEASURE, absent_devices, absent_record, rows_for
from pocketvlm.measure.block import measure

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("devices", "serial", "reason"),
    [
        ("", None, "no phone is connected: adb on port PORT knows none"),
        ("", "a1", "no phone with serial a1 is connected: adb on port PORT knows none"),
        ("b2\tdevice\n", "a1", "no phone with serial a1 is connected: adb on port PORT knows b2 (device)"),
        ("a1\tdevice\n", "a1", None),
        ("a1\tdevice\n", None, None),
        # What a person can mend in front of the phone is no absence: the job says how.
        ("a1\tunauthorized\n", "a1", None),
        ("a1\toffline\n", "a1", None),
        ("a1\tdevice\nb2\tdevice\n", None, None),
    ],
)
def test_a_phone_is_absent_when_adb_does_not_know_it(adb_server, devices, serial, reason):
    server = adb_server(devices)
    expected = reason and reason.replace("PORT", str(server.port))
    assert not_connected(server.port, serial) == expected


def test_a_server_started_for_the_question_is_ended_again():
    port = free_port()
    assert not_connected(port, "a1") == f"no phone with serial a1 is connected: adb on port {port} knows none"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_port_that_is_no_adb_servers_is_a_reason_and_no_crash():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hang_up() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    listener.accept()[0].close()

        listener.settimeout(1)
        server = threading.Thread(target=hang_up)
        server.start()
        assert str(not_connected(port, None)).startswith("no phone can be reached: ")
        server.join()


def test_only_phones_can_be_absent():
    assert absence({"id": "local", "kind": "local"}) is None
    assert absence({"id": "emulated-phone", "kind": "emulated"}) is None


@pytest.fixture
def phone(tmp_path: Path, adb_server) -> Callable[..., study.Study]:
    """Return the smallest experiment on a phone that the given adb server knows or does not know."""
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def make(devices: str, *, absent: str = "row", only_unprovisioned: bool = False) -> study.Study:
        device = yaml.safe_load((tmp_path / "config/devices/local.yaml").read_text())
        transport = {"serial": "a1", "server_port": adb_server(devices).port}
        device |= {"id": "pixel", "kind": "phone", "target": "aarch64-linux-musl", "transport": transport}
        device |= {"host_cores": False}
        (tmp_path / "config/devices/pixel.yaml").write_text(yaml.safe_dump(device))
        path = tmp_path / "config/experiments/tiny.yaml"
        text = yaml.safe_load(path.read_text())
        text["absent"] = absent
        text["cells"][0]["device"] = "pixel"
        if only_unprovisioned:
            text["cells"][0] |= {"framework": "mllm", "version": "unstated", "settings": {}}
        path.write_text(yaml.safe_dump(text))
        config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        return study.load({**config, "experiment": "tiny"}, tmp_path)

    return make


def test_an_absent_phone_leaves_its_cells_as_rows_with_the_reason(phone, tmp_path):
    found = phone("")
    absent = absent_devices(found, tmp_path / "results")
    assert absent["pixel"].reason.startswith("no phone with serial a1 is connected")
    assert not absent["pixel"].identified
    assert rows_for(found, absent).records()["cells"][0]["unavailable"] == absent["pixel"].reason


def test_a_phone_that_is_there_is_not_absent(phone, tmp_path):
    assert absent_devices(phone("a1\tdevice\n"), tmp_path / "results") == {}


def test_an_experiment_that_refuses_asks_nobody(phone, tmp_path):
    assert absent_devices(phone("", absent="refuse"), tmp_path / "results") == {}


def test_cells_that_nobody_can_measure_need_no_device(phone, tmp_path):
    found = phone("a1\tdevice\n", only_unprovisioned=True)
    absent = absent_devices(found, tmp_path / "results")
    assert absent["pixel"].reason == NOTHING_TO_MEASURE
    (cell,) = rows_for(found, absent).cells
    assert cell.unavailable is not None
    assert NOTHING_TO_MEASURE not in cell.unavailable


def test_a_phone_that_was_there_keeps_its_runs(phone, tmp_path):
    found = phone("")
    results = tmp_path / "results"
    identity = results / "devices/pixel/identity.json"
    identity.parent.mkdir(parents=True)
    identity.write_text("{}")
    absent = absent_devices(found, results)
    assert absent["pixel"].identified
    assert rows_for(found, absent).cells == found.cells
    index = results / "tiny/blocks/pixel.json"
    index.parent.mkdir(parents=True)
    run = {"run": "k/00", "cell": found.cells[0].id, "role": "measured"}
    index.write_text(json.dumps({"runs": [run]}))
    assert absent_devices(found, results)["pixel"].identified
    index.write_text(json.dumps({"runs": [run] * found.experiment["repeats"]}))
    assert absent_devices(found, results) == {}


def test_the_record_of_an_absent_device_has_what_every_identity_has(phone, tmp_path):
    record = absent_record(phone("").devices["pixel"], "not there")
    assert record["absent"] == "not there"
    assert record["sensors"] == [] and record["memory_bytes"] is None
    config = yaml.safe_load((ROOT / "config/devices/local.yaml").read_text())
    identity = identify(LocalDevice("local", tmp_path / "device"), config)
    assert set(record) - {"absent"} == set(identity)


def block(**changes: Any) -> dict[str, Any]:
    return {
        "experiment": "x",
        "device": {"id": "pixel"},
        "absent": "no phone is connected",
        "rows": True,
        "unmeasured": {"cell": "no phone is connected"},
        "probe": None,
        "protocol": {},
        "cells": [],
        **changes,
    }


def test_a_block_without_cells_lists_why_and_touches_no_device(tmp_path):
    index = tmp_path / "x/blocks/pixel.json"
    measure(block(), results=tmp_path, index=index)
    written = json.loads(index.read_text())
    assert written["runs"] == []
    assert written["unmeasured"] == {"cell": "no phone is connected"}


def test_an_absent_phone_cannot_be_measured_anew(tmp_path):
    with pytest.raises(DeviceError, match="no phone is connected"):
        measure(block(), results=tmp_path, index=tmp_path / "i.json", again=True)
    measure(block(absent=NOTHING_TO_MEASURE), results=tmp_path, index=tmp_path / "i.json", again=True)
