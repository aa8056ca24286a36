"""Toolchains: zig from the environment, an NDK by its variable, and what is said when one is missing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build import toolchains
from pocketvlm.build.program import build_program
from pocketvlm.errors import ConfigError, ProvisionError

ROOT = Path(__file__).parents[2]
CATALOGUE: dict[str, Any] = yaml.safe_load((ROOT / "config/toolchains.yaml").read_text())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(toolchains.NDK_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("machine", "target"),
    [
        ("x86_64", "x86_64-linux-musl"),
        ("AMD64", "x86_64-linux-musl"),
        ("aarch64", "aarch64-linux-musl"),
        ("arm64", "aarch64-linux-musl"),
    ],
)
def test_the_host_has_a_target(machine: str, target: str) -> None:
    assert toolchains.host_target(machine) == target


def test_an_unknown_processor_is_named() -> None:
    with pytest.raises(ProvisionError, match="riscv64"):
        toolchains.host_target("riscv64")


@pytest.mark.parametrize(
    ("target", "cpu"),
    [("x86_64-linux-musl", "x86_64_v3"), ("aarch64-linux-musl", "generic+v8_2a+dotprod+fullfp16")],
)
def test_zig_compiles_for_both_targets_with_explicit_features(tmp_path: Path, target: str, cpu: str) -> None:
    made = toolchains.resolve(CATALOGUE, target)
    assert made.name == "zig"
    assert made.version[0].isdigit()
    assert Path(made.cc[0]).is_file()
    assert made.cc[1:] == ("cc", "-target", target)
    assert made.cxx[1:] == ("c++", "-target", target)
    assert (made.ar[1:], made.ranlib[1:]) == (("ar",), ("ranlib",))
    assert made.cpu == cpu
    assert f"-mcpu={cpu}" in made.c_flags
    assert f"-mcpu={cpu}" in made.cxx_flags
    assert made.link_flags == ("-static", "-s")
    assert made.cmake["CMAKE_SYSTEM_PROCESSOR"] == target.split("-")[0]
    for variable in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        assert made.environment[variable].startswith(str(tmp_path / "cache"))


def test_a_missing_zig_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProvisionError, match="first command of the README"):
        toolchains.resolve(CATALOGUE, "x86_64-linux-musl")


def fake_ndk(root: Path, api: int = 28) -> Path:
    """Make the files of an NDK that a build looks for, as release 27 has them."""
    tools = root / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    names = ["llvm-ar", "llvm-ranlib", f"aarch64-linux-android{api}-clang"]
    names.append(names[-1] + "++")
    for path in [root / "build/cmake/android.toolchain.cmake", *(tools / name for name in names)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (root / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n")
    return root


def test_an_ndk_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake_ndk(tmp_path / "ndk")
    monkeypatch.setenv(toolchains.NDK_VARIABLE, str(root))
    monkeypatch.setattr(toolchains.platform, "system", lambda: "Linux")
    made = toolchains.resolve(CATALOGUE, "aarch64-linux-android")
    tools = root / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    assert (made.name, made.version) == ("ndk", "27.2.12479018")
    assert made.cc == (str(tools / "aarch64-linux-android28-clang"),)
    assert made.cxx == (str(tools / "aarch64-linux-android28-clang++"),)
    assert made.ar == (str(tools / "llvm-ar"),)
    assert made.c_flags == ("-march=armv8.2-a+dotprod+fp16", "-g0")
    assert made.cmake == {
        "CMAKE_TOOLCHAIN_FILE": str(root / "build/cmake/android.toolchain.cmake"),
        "ANDROID_ABI": "arm64-v8a",
        "ANDROID_PLATFORM": "android-28",
        "ANDROID_STL": "c++_static",
    }
    # Drivers of a phone are loaded at run time, which a static program cannot do.
    assert "-static" not in made.link_flags


@pytest.mark.parametrize("name", ["n d'k", 'n"dk $(touch canary)`touch canary`', "-x;|&\\"])
def test_the_folder_of_an_ndk_is_only_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A compiler that notes its arguments and compiles nothing: each must arrive as it was meant."""
    root = fake_ndk(tmp_path / name)
    monkeypatch.setenv(toolchains.NDK_VARIABLE, str(root))
    monkeypatch.setattr(toolchains.platform, "system", lambda: "Linux")
    made = toolchains.resolve(CATALOGUE, "aarch64-linux-android")
    script = '#!/bin/sh\nprintf "%s\\n" "$@" > args\nwhile [ "$1" != -o ]; do shift; done\ncp args "$2"\n'
    Path(made.cc[0]).write_text(script)
    Path(made.cc[0]).chmod(0o755)
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    build_program(
        "probe",
        sources=[tmp_path / "main.c"],
        toolchain=made,
        destination=tmp_path / name / "out",
        build_log=tmp_path / name / "build.log",
    )
    arguments = (tmp_path / name / "out/bin/probe").read_text().splitlines()
    assert "main.c" in arguments and arguments[arguments.index("-o") + 1].startswith(str(tmp_path / name))
    assert not list(tmp_path.rglob("canary*")) and not Path("canary").exists()


def test_an_unset_variable_says_what_it_should_hold() -> None:
    with pytest.raises(ProvisionError) as caught:
        toolchains.resolve(CATALOGUE, "aarch64-linux-android")
    assert toolchains.NDK_VARIABLE in str(caught.value)
    for part in ("source.properties", "build/cmake", "toolchains/llvm"):
        assert part in caught.value.do


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_is_no_ndk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    if exists:
        (tmp_path / "sdk").mkdir()
    monkeypatch.setenv(toolchains.NDK_VARIABLE, str(tmp_path / "sdk"))
    with pytest.raises(ProvisionError, match=r"no source\.properties") as caught:
        toolchains.resolve(CATALOGUE, "aarch64-linux-android")
    assert caught.value.where == str(tmp_path / "sdk")


def test_an_ndk_without_the_api_level_lists_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(toolchains.NDK_VARIABLE, str(fake_ndk(tmp_path / "ndk", api=21)))
    monkeypatch.setattr(toolchains.platform, "system", lambda: "Linux")
    with pytest.raises(ProvisionError, match="aarch64-linux-android28-clang") as caught:
        toolchains.resolve(CATALOGUE, "aarch64-linux-android")
    assert "API level 28" in caught.value.do


def test_an_ndk_that_does_not_tell_its_release_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fake_ndk(tmp_path / "ndk")
    (root / "source.properties").write_text("Pkg.Desc = Android NDK\n")
    monkeypatch.setenv(toolchains.NDK_VARIABLE, str(root))
    monkeypatch.setattr(toolchains.platform, "system", lambda: "Linux")
    with pytest.raises(ProvisionError, match="Revision"):
        toolchains.resolve(CATALOGUE, "aarch64-linux-android")


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no toolchain compiles for mips-linux-musl") as caught:
        toolchains.resolve(CATALOGUE, "mips-linux-musl")
    for target in ("aarch64-linux-android", "aarch64-linux-musl", "x86_64-linux-gnu", "x86_64-linux-musl"):
        assert target in caught.value.do


def test_a_target_of_two_toolchains_is_refused() -> None:
    twice = copy.deepcopy(CATALOGUE)
    twice["ndk"]["targets"]["x86_64-linux-musl"] = twice["zig"]["targets"]["x86_64-linux-musl"]
    with pytest.raises(ConfigError, match="is in zig and ndk"):
        toolchains.resolve(twice, "x86_64-linux-musl")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "gcc"}, "unknown kind 'gcc'"), ({"targets": {"x86_64-linux-musl": {}}}, "lacks 'processor'")],
)
def test_an_incomplete_entry_is_named(change: dict[str, Any], message: str) -> None:
    catalogue = {"zig": {**CATALOGUE["zig"], **change}}
    with pytest.raises(ConfigError, match=message):
        toolchains.resolve(catalogue, "x86_64-linux-musl")


def test_every_target_names_its_features_in_its_flags() -> None:
    for entry in CATALOGUE.values():
        for target, values in entry["targets"].items():
            for step in ("c", "cxx"):
                assert any(flag.endswith("=" + values["cpu"]) for flag in values[step]), target
