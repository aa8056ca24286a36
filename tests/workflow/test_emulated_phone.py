"""The emulated phone as it really runs: adbd, its confinement, its sensors, its end."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.devices import open_device
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.base import run, substitute
from pocketvlm.devices.deploy import deploy
from pocketvlm.devices.emulated import confine, lease, load
from pocketvlm.devices.identify import calibration_of, identify
from pocketvlm.errors import DeviceError, ProvisionError, TransientDeviceError
from pocketvlm.measure import sensorlist
from pocketvlm.provenance import canonical_json
from pocketvlm.provision.cache import cache_root

pytestmark = pytest.mark.phone

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config/devices/emulated-phone.yaml").read_text())
_LISTEN = 10  # TCP_LISTEN of the kernel, for vsock too

_HOLDER = """
import json, sys
from pathlib import Path
from pocketvlm.devices import open_device
with open_device(json.loads(sys.argv[1]), results=Path(sys.argv[2])) as phone:
    phone.spawn(["sh", "-c", "sleep 987 & sleep 987"])
    print(phone.serial, flush=True)
    sys.stdin.read()
"""


def config_in(folder: Path) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["emulated"]["folder"] = str(folder)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phones") / "phone"


@pytest.fixture(scope="module")
def phone(folder: Path) -> Iterator[AdbDevice]:
    with open_device(config_in(folder), results=folder.parent) as device:
        assert isinstance(device, AdbDevice)
        yield device


def below_supervisor(folder: Path) -> dict[int, str]:
    """The phone's processes by id, found by their folder: supervisor, server, adbd, writer, commands."""
    found = {}
    for process in [int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()]:
        try:
            if Path(f"/proc/{process}/cwd").resolve(strict=True) == folder:
                found[process] = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def sockets_of(processes: dict[int, str]) -> set[int]:
    """The inodes of all sockets that these processes hold."""
    found = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def internet_sockets() -> dict[int, tuple[str, str, int, bool]]:
    """Every socket of tcp, tcp6, udp and udp6 by inode: table, local address, port, listens."""
    found = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            packed, port = words[1].split(":")
            raw = b"".join(
                struct.pack("=I", int(packed[start : start + 8], 16)) for start in range(0, len(packed), 8)
            )
            address = socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)
            listens = words[3] == "0A" or table.startswith("udp")
            found[int(words[9])] = (table, address, int(port, 16), listens)
    return found


def vsock_listeners() -> set[int] | None:
    """The inodes of all listening vsock sockets, by sock_diag(7); None where the kernel cannot tell."""
    request = struct.pack("=BBHIIIII", socket.AF_VSOCK, 0, 0, 0xFFFFFFFF, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    found = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:
        netlink.settimeout(5)
        netlink.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
        while True:
            data = netlink.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == 3:  # NLMSG_DONE
                    return found
                if kind == 2:  # NLMSG_ERROR
                    return None
                _, _, state, _, *_, inode = struct.unpack_from("=BBBBIIIII", data, 16)
                if state == _LISTEN:
                    found.add(inode)
                data = data[(length + 3) & ~3 :]


def gone(processes: dict[int, str], within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(load.start_time(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def test_nothing_listens_beyond_the_loopback_address(phone, folder):
    processes = below_supervisor(folder)
    assert any("adbd" in command for command in processes.values())
    assert any("nodaemon server" in command for command in processes.values())
    known, held = internet_sockets(), sockets_of(processes)
    listening = sorted(
        (address, port) for _, address, port, listens in map(known.get, held & known.keys()) if listens
    )
    host, port = phone.serial.split(":")
    assert host.startswith("127.0.0.")
    assert len(listening) == 2, listening
    assert (f"::ffff:{host}", int(port)) in listening or (host, int(port)) in listening
    (server,) = [entry for entry in listening if entry[1] != int(port)]
    assert server[0] == "127.0.0.1"
    assert unexplained(held) == set()
    listeners = vsock_listeners()
    assert listeners is None or listeners & held == set()


def unexplained(held: set[int]) -> set[int]:
    """The sockets that are neither internet, local nor netlink: whatever else listens would be among them."""
    unix = {int(line.split()[6]) for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    netlink = {int(line.split()[9]) for line in Path("/proc/net/netlink").read_text().splitlines()[1:]}
    return held - internet_sockets().keys() - unix - netlink


def test_a_vsock_listener_would_have_been_seen():
    try:
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this kernel has no vsock, so that nothing can listen on it")
    with listener:
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        inode = os.fstat(listener.fileno()).st_ino
        assert unexplained({inode}) == {inode}
        listeners = vsock_listeners()
        assert listeners is None or inode in listeners


_CONFINED = """
import errno, socket, sys
def named(family, address=None):
    with socket.socket(family) as s:
        if address is not None: s.bind(address)
        s.listen()
        return s.getsockname()[0]
print(named(socket.AF_INET, ("0.0.0.0", 0)), named(socket.AF_INET, ("127.0.0.1", 0)))
print(named(socket.AF_INET6, ("::", 0)), named(socket.AF_INET6, ("::1", 0)))
print(named(socket.AF_INET), named(socket.AF_INET6))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 0)); print(s.getsockname()[0])
try: socket.socket(socket.AF_VSOCK); print("vsock")
except OSError as error: print(errno.errorcode[error.errno])
with socket.socket(socket.AF_UNIX) as s:
    s.bind(chr(0) + "pocketvlm-test-%s" % sys.argv[1]); print("unix")
"""


def test_the_library_confines_every_way_to_bind(tmp_path):
    environment = {**os.environ, "LD_PRELOAD": str(confine.library()), "POCKETVLM_BIND_ADDRESS": "127.0.0.77"}
    command = [sys.executable, "-c", _CONFINED, str(os.getpid())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    mapped = "::ffff:127.0.0.77"
    assert done.stdout.split() == ["127.0.0.77"] * 2 + [mapped] * 2 + ["127.0.0.77", mapped, "127.0.0.77"] + [
        "EAFNOSUPPORT",
        "unix",
    ], done.stderr


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "10.0.0.1", "localhost", "::1"])
def test_without_a_loopback_address_nothing_can_be_bound(address):
    environment = {**os.environ, "LD_PRELOAD": str(confine.library())}
    environment.pop("POCKETVLM_BIND_ADDRESS", None)
    if address is not None:
        environment["POCKETVLM_BIND_ADDRESS"] = address
    script = "import socket\ntry: socket.socket().bind(('', 0))\nexcept PermissionError: print('no')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "no\n"


def test_it_keeps_the_contract_of_a_device(phone, tmp_path):
    result = phone.shell(
        ["sh", "-c", 'printf "%s|" "$@"; echo bad >&2; exit 7', "sh", "a b", "$HOME", "c'd\n"], 5
    )
    assert (result.status, result.stdout, result.stderr) == (7, "a b|$HOME|c'd\n|", "bad\n")
    assert phone.shell(["no-such-program"], 5).status == 127
    assert len(phone.shell(["head", "-c", "3000000", "/dev/zero"], 20).stdout) == 3_000_000
    process = phone.spawn(["sleep", "61"])
    assert process.poll() is None
    with pytest.raises(TimeoutError):
        process.wait(0.1)
    process.terminate()
    assert process.wait(5).status == 128 + 15
    assert phone.free_space(phone.remote_dir) > 0
    with pytest.raises(DeviceError, match="no such file or folder"):
        phone.pull("/no/such", tmp_path / "x")
    with pytest.raises(DeviceError, match="refused the push"):
        phone.push(Path(__file__), "/proc/no/such")


def test_a_command_at_its_deadline_is_killed_with_its_children(phone, folder):
    with pytest.raises(TransientDeviceError, match=r"did not end within 0\.5 s"):
        phone.shell(["sh", "-c", "sleep 543 & sleep 543"], 0.5)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any("sleep 543" in c for c in below_supervisor(folder).values()):
        time.sleep(0.05)
    assert not any("sleep 543" in command for command in below_supervisor(folder).values())


def test_a_command_runs_exactly_once(phone):
    counter = f"{phone.remote_dir}/counter"
    for _ in range(20):
        phone.shell(["sh", "-c", f"echo x >> {counter}"], 5)
    assert run(phone, ["cat", counter], 5) == "x\n" * 20


def test_a_folder_of_many_small_files_comes_back_quickly(phone, tmp_path):
    there = f"{phone.remote_dir}/many"
    run(
        phone,
        [
            "sh",
            "-c",
            f"mkdir -p {there}/sub; cd {there}; for i in $(seq 500); do echo $i > $i; done; echo s > sub/f",
        ],
        30,
    )
    started = time.monotonic()
    phone.pull(there, tmp_path / "many")
    elapsed = time.monotonic() - started
    assert len(list((tmp_path / "many").iterdir())) == 501
    assert (tmp_path / "many/321").read_text() == "321\n"
    assert (tmp_path / "many/sub/f").read_text() == "s\n"
    assert elapsed < 5


def test_files_are_deployed_once_and_stay_for_the_next_lease(tmp_path):
    config, file = config_in(tmp_path / "phone"), tmp_path / "data.bin"
    file.write_bytes(os.urandom(2_000_000))
    wanted = [(file, hashlib.sha256(file.read_bytes()).hexdigest())]
    with open_device(config, results=tmp_path) as first:
        placed = deploy(first, wanted, first.remote_dir)
        assert run(first, ["sha256sum", placed[wanted[0][1]]], 10).split()[0] == wanted[0][1]
    with open_device(config, results=tmp_path) as second:
        second.push = lambda *_, **__: pytest.fail("pushed again")  # type: ignore[method-assign]
        assert deploy(second, wanted, second.remote_dir) == placed


def test_it_says_that_it_is_emulated(phone, folder):
    identity = identify(phone, CONFIG)
    assert identity["kind"] == "emulated"
    assert identity["notice"].startswith("emulated")
    assert "no number here is a phone's" in identity["notice"]
    assert phone.properties()["ro.pocketvlm.emulated"] == "1"
    assert "modelled" in (folder / "EMULATED").read_text()


def test_its_identity_is_the_same_on_another_start_and_names_no_place(phone, tmp_path):
    identity = canonical_json(identify(phone, CONFIG))
    with open_device(config_in(tmp_path / "other"), results=tmp_path) as other:
        assert canonical_json(identify(other, CONFIG)) == identity
    for place in (phone.remote_dir, phone.serial, str(Path.home()), phone.places["qemu"]):
        assert place not in identity


def test_what_its_batterys_current_means_is_found_by_experiment(phone):
    calibration = calibration_of(phone, CONFIG)
    assert calibration["current_scale"] == -1e-6, calibration["reason"]
    assert calibration["findings"]["moved"]
    assert "negative while discharging" in calibration["findings"]["step"]


def test_its_sensors_can_be_read_where_its_identity_says(phone):
    identity = identify(phone, CONFIG, {"current_scale": -1e-6, "told": None})
    sensors = [{**s, "path": substitute(s["path"], phone.places)} for s in identity["sensors"]]
    sensorlist.text({**identity, "sensors": sensors})
    quantities = {sensor["quantity"] for sensor in sensors}
    assert {
        "temperature",
        "current",
        "voltage",
        "charge",
        "battery_status",
        "gpu_busy",
        "cpu_frequency",
        "time_in_state",
    } <= quantities
    for sensor in sensors:
        if "{pid}" not in sensor["path"]:
            assert Path(sensor["path"]).read_text().strip()


def read(folder: Path, name: str) -> int:
    return int((folder / "sys" / name).read_text().split()[0])


def test_load_becomes_heat_current_and_clock(phone, folder):
    zone, current = "class/thermal/thermal_zone0/temp", "class/power_supply/battery/current_now"
    counter = "class/power_supply/battery/charge_counter"
    # Work runs on the fast cluster first, so that its clock rises even when the phone gets little.
    fast = f"devices/system/cpu/cpufreq/policy{(os.cpu_count() or 1) // 2}"
    gpu = "class/kgsl/kgsl-3d0/gpu_busy_percentage"
    time.sleep(1)
    cool, idle, charge = read(folder, zone), read(folder, current), read(folder, counter)
    unused = read(folder, gpu)
    assert read(folder, f"{fast}/scaling_cur_freq") == read(folder, f"{fast}/cpuinfo_min_freq")
    processes = [phone.spawn(["sh", "-c", "i=0; while :; do i=$((i+1)); done"]) for _ in range(2)]
    time.sleep(8)
    hot, loaded, drained = read(folder, zone), read(folder, current), read(folder, counter)
    clock, composing = read(folder, f"{fast}/scaling_cur_freq"), read(folder, gpu)
    for process in processes:
        process.kill()
    assert hot - cool > 1000, "milli-degrees in eight seconds"
    assert loaded < idle - 100_000, "a discharging current is negative and grows"
    assert clock > 2 * read(folder, f"{fast}/cpuinfo_min_freq")
    assert drained < charge
    assert composing > unused + 20, "the modelled GPU answers to the load"
    time.sleep(4)
    assert read(folder, zone) < hot - 500


# No C library, so that the compiler has nothing else to build: write(1, "arm64\n", 6), exit(3).
_PROGRAM = """
static long call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
void _start(void)
{
    call(64, 1, (long)"arm64\\n", 6);
    call(93, 3, 0, 0);
}
"""


def test_an_arm64_program_runs_through_its_prefix(phone, tmp_path):
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text(_PROGRAM)
    cache = str(tmp_path / "zig")
    flags = ["-target", CONFIG["target"], "-nostdlib", "-static", "-O1"]
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(program), str(source)],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert program.read_bytes()[18:20] == b"\xb7\x00", "EM_AARCH64"
    phone.push(program, f"{phone.remote_dir}/hello", 0o755)
    result = phone.shell([*phone.exec_prefix, f"{phone.remote_dir}/hello"], 20)
    assert (result.status, result.stdout) == (3, "arm64\n")


def test_a_phone_whose_adbd_dies_comes_back(tmp_path):
    with open_device(config_in(tmp_path / "phone"), results=tmp_path) as device:
        process = device.spawn(["sleep", "77"])
        (adbd,) = [
            number
            for number, command in below_supervisor(tmp_path / "phone").items()
            if "--preload" in command
        ]
        os.kill(adbd, signal.SIGKILL)
        with pytest.raises(TransientDeviceError):
            process.wait(10)
        deadline = time.monotonic() + 20
        while True:
            try:
                assert device.shell(["echo", "back"], 5).stdout == "back\n"
                break
            except DeviceError:
                assert time.monotonic() < deadline
                time.sleep(0.2)


def test_a_second_lease_waits_for_the_first(tmp_path, capfd):
    config = config_in(tmp_path / "phone")
    with open_device(config, results=tmp_path):
        arguments = [sys.executable, "-c", _HOLDER, canonical_json(config), str(tmp_path)]
        second = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(2)
        assert second.poll() is None
    output, errors = second.communicate("", timeout=60)
    assert second.returncode == 0
    assert output.startswith("127.0.0.")
    assert f"in use: process {os.getpid()} since" in errors


@pytest.mark.parametrize("end", ["close", "SIGINT", "SIGTERM", "SIGKILL", "supervisor SIGKILL"])
def test_nothing_is_left_however_its_holder_ends(tmp_path, end):
    folder = tmp_path / "phone"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, canonical_json(config_in(folder)), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("127.0.0.")
        time.sleep(1)
        (supervisor,) = load.descendants(holder.pid)[:1]
        processes = dict.fromkeys([supervisor, *load.descendants(supervisor)], "")
        assert len(processes) >= 6, "supervisor, server, adbd, writer, and what runs on the phone"
        if end == "close":
            holder.communicate("", timeout=20)
            assert holder.returncode == 0
        elif end == "supervisor SIGKILL":
            os.kill(supervisor, signal.SIGKILL)
        else:
            os.kill(holder.pid, getattr(signal, end))
        assert gone(processes, 8), [load.stat_fields(process) for process in processes]
    finally:
        holder.kill()
        holder.wait()
    # The lock is free again, and the phone starts with the heat and charge it had.
    assert (folder / "state.json").is_file()
    started = time.monotonic()
    with open_device(config_in(folder), results=tmp_path) as again:
        assert again.shell(["true"], 5).status == 0
    assert time.monotonic() - started < 15


def test_where_it_cannot_be_had_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    with (
        pytest.raises(ProvisionError, match="experiment=local"),
        open_device(config_in(tmp_path / "phone"), results=tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["c ache", "c'ache $(x) `x` ü", "c;ache", "$LIB"])
def test_the_phone_is_confined_whatever_the_cache_is_called(tmp_path, monkeypatch, name):
    """The dynamic linker takes a space for the end of a library's name, and goes on without it."""
    cache = tmp_path / name
    cache.mkdir()
    for shared in ("apt", "zig"):
        (cache / shared).symlink_to(cache_root() / shared)
    monkeypatch.setenv("POCKETVLM_CACHE", str(cache))
    folder = tmp_path / "a phone"
    try:
        with open_device(config_in(folder), results=tmp_path):
            processes = below_supervisor(folder)
            known, held = internet_sockets(), sockets_of(processes)
            listening = [address for _, address, _, listens in map(known.get, held & known.keys()) if listens]
            assert len(listening) == 2
            assert all(address.removeprefix("::ffff:").startswith("127.") for address in listening), listening
    except DeviceError as error:
        # A linker that cannot find adbd's libraries says so, and nothing runs.
        assert name in ("c;ache", "$LIB") and "does not start" in error.what
    assert below_supervisor(folder) == {}


def test_an_adbd_without_its_library_is_ended_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "place", lambda root: (root / ".confine.so").write_bytes(b"no library"))
    folder = tmp_path / "phone"
    with (
        pytest.raises(DeviceError, match="without the library that confines it"),
        open_device(config_in(folder), results=tmp_path),
    ):
        pass
    assert gone(below_supervisor(folder), 5)


def test_nothing_is_written_to_the_users_home(phone, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "POCKETVLM_CACHE": str(cache_root())}
    arguments = [sys.executable, "-c", _HOLDER, canonical_json(config_in(tmp_path / "phone")), str(tmp_path)]
    done = subprocess.run(arguments, input="", env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
