"""Names that no file, shell, page or table should meet are refused in the configuration, with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import study
from pocketvlm.config.schema import validate
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.locks import device_lock
from pocketvlm.errors import ConfigError, DeviceError
from tests.adb_server import FakeServer

ROOT = Path(__file__).parents[2]

HOSTILE = [
    "a b",
    "it's",
    'a"b',
    "$(touch canary)",
    "`touch canary`",
    "a;b",
    "-rf",
    ".hidden",
    "..",
    "../devices/local",
    "/etc/passwd",
    "a/b",
    "a\nb",
    "coffee\n",
    "a\tb",
    "a\x1b[2J",
    "a\u202eb",
    "ü",
    "<script>",
    "a|b",
    "=1+1",
    "{root}",
    "*",
    "",
    "x" * 300,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the project's configuration."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def config(experiment: str = "tiny") -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return {**loaded, "experiment": experiment}


def rename(root: Path, kind: str, name: str) -> None:
    """Have the experiment name a thing so, and a file of that name wherever there can be one."""
    path = root / "config/experiments/tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    experiment["cells"][0][kind] = name
    path.write_text(yaml.safe_dump(experiment))
    source = {"device": "devices/emulated-phone.yaml", "workload": "workloads/coffee.yaml"}.get(kind)
    if source is None:
        return
    content = yaml.safe_load((root / "config" / source).read_text())
    if kind == "device":
        content["id"] = name
    target = root / "config" / Path(source).parent / f"{name}.yaml"
    if target.parent.is_dir() and "/" not in name and len(name) < 200:
        target.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "kind", ["device", "framework", "version", "backend", "model", "quantisation", "workload"]
)
def test_no_part_of_a_cell_has_such_a_name(root: Path, kind: str, name: str) -> None:
    rename(root, kind, name)
    with pytest.raises(ConfigError) as caught:
        study.load(config(), root)
    assert caught.value.what and caught.value.where and caught.value.do
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_experiment_has_such_a_name(root: Path, name: str) -> None:
    if "/" not in name and len(name) < 200:
        shutil.copy2(root / "config/experiments/tiny.yaml", root / f"config/experiments/{name}.yaml")
    with pytest.raises(ConfigError) as caught:
        study.load(config(name), root)
    assert caught.value.what and caught.value.where and caught.value.do


@pytest.mark.parametrize("table", ["models", "frameworks"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "x" * 300])
def test_no_entry_of_a_table_has_such_a_name(root: Path, table: str, name: str) -> None:
    path = root / f"config/{table}.yaml"
    entries = yaml.safe_load(path.read_text())
    entries[name] = next(iter(entries.values()))
    with pytest.raises(ConfigError) as caught:
        validate(entries, table, where=str(path))
    assert caught.value.where and caught.value.do


def device(key: str, value: Any) -> Callable[[], None]:
    content = yaml.safe_load((ROOT / "config/devices/oneplus13r.yaml").read_text())
    return lambda: validate({**content, key: value}, "device", where="phone.yaml")


def workload(key: str, value: Any) -> Callable[[], None]:
    content = yaml.safe_load((ROOT / "config/workloads/coffee.yaml").read_text())
    return lambda: validate({**content, key: value}, "workload", where="work.yaml")


@pytest.mark.parametrize(
    ("check", "place"),
    [
        *((device("remote_dir", f"/data/{c}x"), "phone.yaml: remote_dir") for c in "\n\t\0\x1b\x7f"),
        *((device("sysfs_root", f"/data/{c}x"), "phone.yaml: sysfs_root") for c in "\n\t\0\x1b\x7f"),
        (device("remote_dir", "/data/x\n"), "phone.yaml: remote_dir"),
        (device("remote_dir", ""), "phone.yaml: remote_dir"),
        (workload("prompt", "a\0b"), "work.yaml: prompt"),
        (workload("prompt", "a\ud800b"), "work.yaml: prompt"),
        *(
            (workload("image", name), "work.yaml: image")
            for name in ("--help.png", ".png", "..", "a/b.png", "a b.png", "a.png\n", "$(x).png", "x" * 202)
        ),
    ],
)
def test_what_no_command_and_no_list_can_hold_is_refused(check: Callable[[], None], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check()
    assert caught.value.where == place and caught.value.do.startswith("It should be ")


@pytest.mark.parametrize("prompt", ["$(x) `y` 'z'\n\u202e -x --help", "--", "\\0 %s {root} \x07"])
def test_any_other_prompt_is_a_prompt(prompt: str) -> None:
    workload("prompt", prompt)()


@pytest.mark.parametrize("serial", ["a'b $(touch canary)`touch canary`;x", "../../x", "-s", "a/b:5555"])
def test_a_serial_is_only_sent_to_the_adb_server(
    adb_server: Callable[..., FakeServer], serial: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))
    server = adb_server(f"{serial}\tdevice\n")
    AdbDevice(device_id="p", kind="phone", serial=serial, port=server.port, remote_dir="/data/local/tmp/p")
    assert f"host-serial:{serial}:features" in server.asked
    with device_lock(f"serial-{serial}"):
        (lock,) = (tmp_path / "cache/locks").iterdir()
    assert lock.parent == tmp_path / "cache/locks" and not list(tmp_path.rglob("canary"))


def test_a_serial_with_a_line_end_is_not_connected(adb_server: Callable[..., FakeServer]) -> None:
    server = adb_server("a\tdevice\n")
    with pytest.raises(DeviceError, match="is not connected") as caught:
        AdbDevice(
            device_id="p", kind="phone", serial="a\nb", port=server.port, remote_dir="/data/local/tmp/p"
        )
    assert caught.value.where == "config/devices/p.yaml, key transport.serial"
