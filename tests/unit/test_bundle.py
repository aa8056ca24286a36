"""Bundles: the same bytes from two folders, a manifest of what they are, complete or absent."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build import bundle, framework, toolchains
from pocketvlm.build.program import build_program
from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import read_json, sha256_file

ROOT = Path(__file__).parents[2]
CATALOGUE: dict[str, Any] = yaml.safe_load((ROOT / "config/toolchains.yaml").read_text())
FRAMEWORKS: dict[str, Any] = yaml.safe_load((ROOT / "config/frameworks.yaml").read_text())
HOST = toolchains.host_target()

PROGRAM = """
#include <stdio.h>
int main(int argc, char **argv) {
    printf("%s ran, %s\\n", argc > 0 && argv[0] ? "it" : "", __FILE__);
    return 0;
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(small C CXX)
add_executable(small main.cpp)
target_compile_definitions(small PRIVATE COMMIT="${SMALL_COMMIT}" FAST="${SMALL_FAST}")
set_target_properties(small PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
"""
MAIN = """
#include <cstdio>
#include <cstdlib>
void failed(const char *file) { std::fputs(file, stderr); std::abort(); }
#define CHECK(x) do { if (!(x)) { failed(__FILE__); } } while (0)
int main(int argc, char **) { CHECK(argc > 0); std::puts(COMMIT " " FAST); return 0; }
"""
SOURCE = {"project": "small", "version": "1.0", "sha256": "0" * 64, "commit": "0123456789abcdef0123"}
RECIPE: dict[str, Any] = {
    "subfolder": "vendor/small",
    "change_log": "CHANGELOG.md",
    "targets": ["small"],
    "collect": {"bin/small": "bin/small"},
    "options": {"CMAKE_BUILD_TYPE": "Release", "SMALL_COMMIT": "{commit}"},
    "processors": {"x86_64": {"SMALL_FAST": "v3"}, "aarch64": {"SMALL_FAST": "neon"}},
}
CHANGES = (
    "# Changes\n\n## [1.0]\n\n- feat: update to some/repo@0123456789ab\n\n## [0.9]\n\n- repo@deadbeef00\n"
)


def toolchain(target: str = HOST) -> toolchains.Toolchain:
    return toolchains.resolve(CATALOGUE, target)


def sources(folder: Path, program: str = PROGRAM) -> list[Path]:
    folder.mkdir(parents=True)
    (folder / "main.c").write_text(program)
    (folder / "extra.h").write_text("#define EXTRA 1\n")
    return [folder / "main.c", folder / "extra.h"]


def make_probe(base: Path, target: str = HOST, program: str = PROGRAM) -> Path:
    destination = base / "out" / f"probe-{target}"
    build_program(
        "probe",
        sources=sources(base / "sources", program),
        toolchain=toolchain(target),
        destination=destination,
        build_log=base / "log" / "probe.log",
    )
    return destination


@pytest.mark.parametrize("target", ["x86_64-linux-musl", "aarch64-linux-musl"])
def test_two_folders_give_the_same_bytes(tmp_path: Path, target: str) -> None:
    first = make_probe(tmp_path / "a", target)
    second = make_probe(tmp_path / "quite" / "another" / "folder", target)
    assert (first / "bin/probe").read_bytes() == (second / "bin/probe").read_bytes()
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()
    assert str(tmp_path).encode() not in (first / "bin/probe").read_bytes()


def test_the_manifest_says_what_it_is_and_how_it_was_made(tmp_path: Path) -> None:
    made = make_probe(tmp_path)
    manifest = read_json(made / "manifest.json")
    program = made / "bin/probe"
    assert manifest["format"] == 1
    assert (manifest["name"], manifest["target"]) == (f"probe-{HOST}", HOST)
    assert manifest["toolchain"] == {"name": "zig", "version": toolchain().version}
    assert manifest["cpu_features"] == toolchain().cpu
    assert f"-mcpu={toolchain().cpu}" in manifest["flags"]["c"]
    assert manifest["files"] == {
        "bin/probe": {
            "sha256": sha256_file(program),
            "bytes": program.stat().st_size,
            "mode": "0755",
        }
    }
    assert str(tmp_path) not in json.dumps(manifest)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "it ran, main.c\n"


def test_another_source_gives_another_manifest(tmp_path: Path) -> None:
    first = make_probe(tmp_path / "a")
    second = make_probe(tmp_path / "b", program=PROGRAM + "/* a remark */\n")
    assert (first / "bin/probe").read_bytes() == (second / "bin/probe").read_bytes()
    hashes = [read_json(made / "manifest.json")["source"]["sha256"] for made in (first, second)]
    assert hashes[0] != hashes[1]


def test_what_does_not_compile_leaves_a_log_and_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="no_such_name") as caught:
        make_probe(tmp_path, program="int main(void) { return no_such_name; }\n")
    assert caught.value.where == str(tmp_path / "log" / "probe.log")
    assert "no_such_name" in (tmp_path / "log" / "probe.log").read_text()
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_person_has_set_does_not_reach_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_probe(tmp_path / "a")
    for name, value in {"CFLAGS": "-O0", "CPATH": "/nowhere", "SOURCE_DATE_EPOCH": "1"}.items():
        monkeypatch.setenv(name, value)
    second = make_probe(tmp_path / "b")
    assert (first / "bin/probe").read_bytes() == (second / "bin/probe").read_bytes()


def small_archive(path: Path, changes: str = CHANGES, main: str = MAIN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {
        "CHANGELOG.md": changes,
        "vendor/small/CMakeLists.txt": CMAKE,
        "vendor/small/main.cpp": main,
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"small-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def make_framework(base: Path, **changes: Any) -> Path:
    destination = base / "out" / f"small-1.0-cpu-{HOST}"
    archive = small_archive(
        base / "small.tar.gz", **{key: changes.pop(key) for key in ("changes", "main") if key in changes}
    )
    framework.build_framework(
        origin=archive,
        source=SOURCE,
        recipe={**RECIPE, **changes},
        backend={"options": {"SMALL_BACKEND": "cpu"}},
        toolchain=toolchain(),
        destination=destination,
        jobs=2,
        build_log=base / "log" / "build.log",
    )
    return destination


@pytest.mark.slow
def test_a_framework_is_built_by_its_recipe_and_reproducibly(tmp_path: Path) -> None:
    first = make_framework(tmp_path / "a")
    second = make_framework(tmp_path / "somewhere" / "else")
    program = first / "bin/small"
    assert program.read_bytes() == (second / "bin/small").read_bytes()
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()
    assert str(tmp_path).encode() not in program.read_bytes()
    fast = RECIPE["processors"][toolchain().processor]["SMALL_FAST"]
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert said == f"012345678 {fast}\n"
    manifest = read_json(first / "manifest.json")
    assert manifest["source"] == SOURCE
    assert manifest["flags"]["cmake"]["SMALL_FAST"] == fast
    assert manifest["flags"]["cmake"]["SMALL_BACKEND"] == "cpu"
    assert str(tmp_path) not in json.dumps(manifest)
    assert sorted(path.name for path in (tmp_path / "a" / "out").iterdir()) == [first.name]


# What a person may call a folder; CMake, ninja, a shell and a compiler each take some of it for their own.
ODD = ["it's a folder", 'q"$(touch canary)`touch canary`', "a=b", "a${HOME}", "a;b|c", "a\\b"]


@pytest.mark.parametrize("name", ODD)
def test_the_name_of_the_folder_is_not_in_the_bytes_of_a_program(tmp_path: Path, name: str) -> None:
    plain, odd = make_probe(tmp_path / "plain"), make_probe(tmp_path / name)
    assert (plain / "bin/probe").read_bytes() == (odd / "bin/probe").read_bytes()
    assert not list(tmp_path.rglob("canary*")) and not Path("canary").exists()


@pytest.mark.slow
def test_a_framework_can_be_built_in_any_folder(tmp_path: Path) -> None:
    plain = make_framework(tmp_path / "plain")
    for name in ODD:
        odd = make_framework(tmp_path / name)
        assert (plain / "bin/small").read_bytes() == (odd / "bin/small").read_bytes(), name
        assert [path.name for path in odd.parent.iterdir()] == [odd.name]
    assert not list(tmp_path.rglob("canary*")) and not Path("canary").exists()


def test_where_no_folder_is_plain_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.tempfile, "gettempdir", lambda: "/tmp/a;b")
    with (
        pytest.raises(ProvisionError, match=r"unusual characters.*TMPDIR"),
        bundle.workplace(tmp_path / "a=b" / "x"),
    ):
        pass


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_log_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"the build failed with status 1: .*missing_name") as caught:
        make_framework(tmp_path, main="int main() { return missing_name; }\n")
    assert caught.value.where == str(tmp_path / "log" / "build.log")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_file_that_was_not_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="made no other"):
        make_framework(tmp_path, collect={"bin/small": "bin/small", "bin/other": "bin/other"})
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_of_another_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="feedface00"):
        make_framework(tmp_path, changes=CHANGES.replace("0123456789ab", "feedface00"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), bundle.complete(tmp_path / "made") as folder:
        (folder / "half").write_text("")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with bundle.complete(tmp_path / "made") as folder:
        (folder / "whole").write_text("")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]


def test_the_recipe_of_llama_cpp_leaves_nothing_to_the_machine() -> None:
    recipe = FRAMEWORKS["llama.cpp"]["build"]
    assert recipe["options"]["GGML_NATIVE"] == "OFF"
    assert "{commit}" in recipe["options"]["LLAMA_BUILD_COMMIT"]
    assert {"GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2"} <= set(recipe["processors"]["x86_64"])
    for entry in CATALOGUE.values():
        for values in entry["targets"].values():
            assert values["processor"] in recipe["processors"]


def test_the_tools_are_those_of_this_environment() -> None:
    assert shutil.which("cmake", path=str(Path(sys.executable).parent))
    assert shutil.which("ninja", path=str(Path(sys.executable).parent))
