"""What a backend's build needs: what is missing is named, what is there gets into options and bundle."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build.requires import Provided, lacking, provide
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.config import frameworks
from pocketvlm.errors import ProvisionError
from pocketvlm.provenance import write_json
from pocketvlm.provision import elf

ROOT = Path(__file__).parents[2]
TOOLCHAINS = yaml.safe_load((ROOT / "config/toolchains.yaml").read_text())
BACKENDS = frameworks.load(ROOT / "config/frameworks.yaml")["llama.cpp"]["backends"]
PHONE = "aarch64-linux-android"


def toolchain(**changes: Any) -> Toolchain:
    plain = {
        "name": "zig", "version": "1", "target": "x86_64-linux-gnu", "processor": "x86_64", "cpu": "v3",
        "cc": ("zig", "cc"), "cxx": ("zig", "c++"), "ar": ("zig", "ar"), "ranlib": ("zig", "ranlib"),
        "c_flags": ("-g0",), "cxx_flags": ("-g0", "-s"), "link_flags": ("-static", "-s"),
    }  # fmt: skip
    return Toolchain(**{**plain, **changes})


def library(path: Path, *needed: str, soname: str | None = None) -> Path:
    """Write the smallest ELF file that asks for libraries: a header, two segments and their content."""
    strings, tags = b"\0", []
    for tag, name in [*((1, name) for name in needed), *([(14, soname)] if soname else [])]:
        tags.append((tag, len(strings)))
        strings += name.encode() + b"\0"
    tags.append((10, len(strings)))
    headers = 64 + 2 * 56
    dynamic = b"".join(struct.pack("<qQ", *pair) for pair in [*tags, (5, 0x1000 + headers), (0, 0)])
    body = strings + dynamic
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0, headers + len(body), headers + len(body), 1)
    place = headers + len(strings)
    dynamic_segment = struct.pack("<IIQQQQQQ", 2, 4, place, 0x1000 + place, 0, len(dynamic), len(dynamic), 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + load + dynamic_segment + body)
    return path


def packages(root: Path) -> Path:
    """Debian packages as they lie when they are unpacked: a driver, what it asks for, a program."""
    tree = root / "tree/root"
    folder = tree / "usr/lib/x86_64-linux-gnu"
    library(folder / "libvulkan.so.1", "libc.so.6", soname="libvulkan.so.1")
    library(folder / "libvulkan_lvp.so", "libLLVM.so.1", "libm.so.6", "libc.so.6")
    library(folder / "libLLVM.so.1", "libz.so.1", "libc.so.6")
    library(folder / "libz.so.1", "libc.so.6", soname="libz.so.1")
    library(tree / "lib/x86_64-linux-gnu/libc.so.6", "ld-linux-x86-64.so.2")
    (tree / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").write_text('#!/bin/sh\necho linker "$@"\n')
    (tree / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").chmod(0o755)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/glslc").write_text("")
    write_json(root / "tree/packages.json", {"release": "bookworm", "files": {"x.deb": "1" * 64}})
    return tree


def fetched(tree: Path) -> Any:
    def fetch(names: Sequence[str], *, architecture: str) -> Path:
        assert set(names) == set(BACKENDS["lavapipe"]["requires"]["debian"]["packages"])
        assert architecture == "amd64"
        return tree

    return fetch


def lavapipe(tmp_path: Path, **more: Any) -> Provided:
    return provide(
        BACKENDS["lavapipe"]["requires"],
        backend="lavapipe",
        toolchain=toolchain(),
        root=tmp_path / "build",
        tree=fetched(packages(tmp_path)),
        **{"host": toolchain, **more},
    )


def test_a_driver_is_taken_along_with_all_but_the_c_library(tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    lavapipe(tmp_path).take_along(made)
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert files == {
        "lib/libLLVM.so.1", "lib/libvulkan.so.1", "lib/libvulkan_lvp.so", "lib/libz.so.1",
        "share/lavapipe.json", "cache/README",
    }  # fmt: skip
    driver = yaml.safe_load((made / "share/lavapipe.json").read_text())["ICD"]["library_path"]
    assert (made / "share" / driver).resolve() == (made / "lib/libvulkan_lvp.so").resolve()


def test_options_get_paths_and_the_record_none(tmp_path: Path) -> None:
    provided = lavapipe(tmp_path)
    filled = {name: provided.fill(value) for name, value in BACKENDS["lavapipe"]["options"].items()}
    assert not any("{" in value for value in filled.values())
    assert Path(filled["Vulkan_LIBRARY"]).parent.is_dir() and filled["GGML_VULKAN"] == "ON"
    assert provided.record == {"debian": {"release": "bookworm", "files": {"x.deb": "1" * 64}}}
    # The program starts with the packages' own linker and libraries, whatever is in its arguments.
    said = subprocess.run([filled["Vulkan_GLSLC_EXECUTABLE"], "a b"], capture_output=True, text=True).stdout
    assert said.startswith("linker --library-path ") and said.endswith("usr/bin/glslc a b\n")
    host = Path(filled["GGML_VULKAN_SHADERS_GEN_TOOLCHAIN"]).read_text()
    assert 'set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -s")' in host
    assert "exec zig c++ -g0 -s" in (tmp_path / "build/host/cxx_compiler").read_text()


def test_a_package_that_lacks_something_is_told(tmp_path: Path) -> None:
    tree = packages(tmp_path)
    (tree / "usr/lib/x86_64-linux-gnu/libz.so.1").unlink()
    with pytest.raises(ProvisionError, match=r"lack libz\.so\.1, which libvulkan_lvp\.so asks for"):
        provide(
            BACKENDS["lavapipe"]["requires"], backend="lavapipe", toolchain=toolchain(),
            root=tmp_path, tree=fetched(tree), host=toolchain,
        )  # fmt: skip
    with pytest.raises(ProvisionError, match="no toolchain was given"):
        lavapipe(tmp_path / "other", host=None)


def test_a_backend_that_needs_nothing_gets_nothing(tmp_path: Path) -> None:
    provided = provide({}, backend="cpu", toolchain=toolchain(), root=tmp_path)
    provided.take_along(tmp_path / "bundle")
    assert provided.record == {} and not (tmp_path / "bundle").exists()


def sdk(folder: Path, backend: str) -> dict[str, str]:
    """An SDK that has what is asked for, and the variable that names it."""
    (about,) = BACKENDS[backend]["requires"]["sdks"]
    for name in about["files"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name) if "." in path.name else path.mkdir(exist_ok=True)
    return {about["variable"]: str(folder)}


def ndk(folder: Path) -> Path:
    tools = folder / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    tools.mkdir(parents=True)
    (folder / "build/cmake").mkdir(parents=True)
    (folder / "source.properties").write_text("Pkg.Revision = 27.2.12479018\n")
    for name in (
        "aarch64-linux-android28-clang",
        "aarch64-linux-android28-clang++",
        "llvm-ar",
        "llvm-ranlib",
    ):
        (tools / name).write_text("")
    (folder / "build/cmake/android.toolchain.cmake").write_text("")
    return folder


def missing(backend: str, environment: dict[str, str], version: str = "0.3.36") -> str | None:
    return lacking(
        BACKENDS[backend]["requires"], backend=backend, version=version, target=PHONE,
        toolchains=TOOLCHAINS, environment=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "variable", "first"),
    [("opencl", "OPENCL_SDK_ROOT", "include/CL/cl.h"), ("hexagon", "HEXAGON_SDK_ROOT", "hexagon_sdk.json")],
)
def test_what_a_phone_build_lacks_is_told_one_after_the_other(
    backend: str, variable: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    assert f"{variable} is not set: Set {variable} to its folder, which must have {first}" in str(
        missing(backend, {})
    )
    environment = sdk(tmp_path / "sdk", backend)
    (tmp_path / "sdk" / first).unlink()
    assert f"lacks {first} ({variable}={tmp_path}/sdk)" in str(missing(backend, environment))
    environment = sdk(tmp_path / "sdk", backend)
    assert "ANDROID_NDK_HOME is not set" in str(missing(backend, environment))
    monkeypatch.setenv("ANDROID_NDK_HOME", str(ndk(tmp_path / "ndk")))
    if shutil.which("true") and os.uname().sysname == "Linux":
        assert missing(backend, environment) is None


def test_a_version_without_the_backend_is_told() -> None:
    assert missing("hexagon", {}, "0.3.16") == (
        "version 0.3.16 has no backend hexagon, which came later: use 0.3.36"
    )


@pytest.mark.parametrize("backend", ["opencl", "hexagon"])
def test_options_of_a_phone_name_the_sdk(backend: str, tmp_path: Path) -> None:
    environment = sdk(tmp_path / "sdk", backend)
    provided = provide(
        BACKENDS[backend]["requires"], backend=backend, toolchain=toolchain(), root=tmp_path,
        environment=environment,
    )  # fmt: skip
    filled = {name: provided.fill(value) for name, value in BACKENDS[backend]["options"].items()}
    assert not any("{" in value for value in filled.values())
    assert any(value.startswith(str(tmp_path / "sdk")) for value in filled.values())
    (hashes,) = provided.record.values()
    assert str(tmp_path) not in str(provided.record) and any(hashes.values())


def test_a_library_is_looked_for_in_order_and_once(tmp_path: Path) -> None:
    library(tmp_path / "a/libx.so", "liby.so", "libgone.so", "libown.so")
    library(tmp_path / "b/liby.so", "libx.so")
    library(tmp_path / "b/libx.so", "libother.so")
    found, gone = elf.closure("libx.so", [tmp_path / "a", tmp_path / "b"], without=["libown.so"])
    assert found == {"libx.so": tmp_path / "a/libx.so", "liby.so": tmp_path / "b/liby.so"}
    assert gone == ["libgone.so"]
