"""Sources that a user has: trees, plain-command recipes and binaries, and what is said of each bad one."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build import recipes, toolchains
from pocketvlm.build.framework import build_framework
from pocketvlm.errors import ConfigError, IntegrityError, PocketvlmError, ProvisionError
from pocketvlm.provenance import read_json, sha256_file
from pocketvlm.provision import elf, sources
from pocketvlm.provision import prebuilt as prebuilt_module
from pocketvlm.provision import tree as tree_module
from pocketvlm.provision.prebuilt import take_prebuilt
from pocketvlm.provision.tree import copy_tree, tree_sha256
from pocketvlm.provision.zipped import unpack_zip
from tests import framework_tree

ROOT = Path(__file__).parents[2]
CATALOGUE: dict[str, Any] = yaml.safe_load((ROOT / "config/toolchains.yaml").read_text())
HOST = toolchains.host_target()
OTHER = next(t for t in ("x86_64-linux-musl", "aarch64-linux-musl") if t != HOST)
REQUIRED = ("bin/llama-mtmd-cli",)


def build(base: Path, tree: Path, target: str = HOST, **changes: Any) -> Path:
    """Build the tree by its recipe."""
    destination = base / "out" / f"tree-stand-in-1-cpu-{target}"
    sha256 = changes.pop("sha256", None) or tree_sha256(tree)
    recipe = {"tool": "command", "steps": framework_tree.STEPS, "collect": framework_tree.COLLECT}
    build_framework(
        origin=tree, source={"kind": "directory", "name": tree.name, "sha256": sha256},
        recipe={**recipe, **changes}, backend={}, toolchain=toolchains.resolve(CATALOGUE, target),
        destination=destination, jobs=1, build_log=base / "build.log", required=REQUIRED,
    )  # fmt: skip
    return destination


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, built for this machine."""
    base = tmp_path_factory.mktemp("built")
    return build(base, framework_tree.write_tree(base / "tree"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return framework_tree.write_tree(tmp_path / "tree")


def test_a_tree_is_built_by_plain_commands_with_the_projects_compiler(bundle: Path) -> None:
    done = subprocess.run([bundle / "bin/llama-mtmd-cli"], capture_output=True, text=True, check=True)
    assert done.stdout.count(" word") == 30
    manifest = read_json(bundle / "manifest.json")
    assert set(manifest["files"]) == {"bin/llama-mtmd-cli", "share/words"}
    assert manifest["source"]["kind"] == "directory" and len(manifest["source"]["sha256"]) == 64
    assert manifest["toolchain"]["name"] == "zig" and manifest["flags"]["steps"][0].startswith("'{cc}'")
    assert str(bundle.parents[1]) not in (bundle / "manifest.json").read_text()
    assert str(bundle.parents[1]).encode() not in (bundle / "bin/llama-mtmd-cli").read_bytes()


def test_every_change_of_a_tree_is_another_tree_and_gits_own_files_are_not(tree: Path) -> None:
    found = [tree_sha256(tree)]
    (tree / ".git").mkdir()
    (tree / ".git/index").write_text("x")
    assert tree_sha256(tree) == found[0]
    for change in (
        lambda: (tree / "words").write_text(" other"),
        lambda: (tree / "words").chmod(0o755),
        lambda: (tree / "words").rename(tree / "texts"),
        lambda: (tree / "link").symlink_to("texts"),
        lambda: ((tree / "link").unlink(), (tree / "link").symlink_to("main.c")),
    ):
        change()  # type: ignore[no-untyped-call]
        found.append(tree_sha256(tree))
    assert len(set(found)) == len(found)


def test_a_copy_has_the_hash_of_what_was_copied(tree: Path, tmp_path: Path) -> None:
    (tree / "deep").mkdir()
    (tree / "deep/run").write_text("#!/bin/sh\n")
    (tree / "deep/run").chmod(0o755)
    (tree / "deep/up").symlink_to("../words")
    assert copy_tree(tree, tmp_path / "copy") == tree_sha256(tree) == tree_sha256(tmp_path / "copy")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret"])
def test_a_link_out_of_a_tree_is_refused(tree: Path, tmp_path: Path, target: str) -> None:
    (tree / "link").symlink_to(target)
    with pytest.raises(IntegrityError, match="the link link leads out of the folder"):
        copy_tree(tree, tmp_path / "copy")


def test_a_link_that_leads_out_of_a_tree_through_another_link_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tree / "deep").mkdir()
    (tree / "deep/up").symlink_to("..")
    (tree / "same").symlink_to("deep/up/words")
    assert copy_tree(tree, tmp_path / "copy") == tree_sha256(tree), "one that stays inside may do so"
    # To the letter this is `secret` in the tree itself.
    (tree / "link").symlink_to("deep/up/../secret")
    with pytest.raises(
        IntegrityError, match=r"the link link leads out of the folder, to 'deep/up/\.\./secret'"
    ):
        copy_tree(tree, tmp_path / "other")


def test_a_name_that_is_no_text_is_told_and_no_crash(tree: Path, tmp_path: Path) -> None:
    (tree / os.fsdecode(b"caf\xe9")).write_text("x")
    for read in (tree_sha256, lambda folder: copy_tree(folder, tmp_path / "copy")):
        with pytest.raises(ProvisionError, match=r"the name 'caf.' is no UTF-8 .*tree"):
            read(tree)
    (tree / os.fsdecode(b"caf\xe9")).unlink()
    (tree / "link").symlink_to(os.fsdecode(b"caf\xe9"))
    with pytest.raises(ProvisionError, match="is no UTF-8"):
        tree_sha256(tree)


def test_a_file_that_goes_away_while_its_tree_is_read_is_told(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = list(tree_module.walk(tree))
    (tree / "words").unlink()
    monkeypatch.setattr(tree_module, "walk", lambda _: iter(stale))
    for read in (tree_sha256, lambda folder: copy_tree(folder, tmp_path / "copy")):
        with pytest.raises(ProvisionError, match=r"went away while it was read .*words\)\. Start again"):
            read(tree)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sha256": "0" * 64}, IntegrityError, r"the source tree has the hash [0-9a-f]{64}, expected 0{64}"),
        ({"steps": [["{cc}", "{nosuch}"]]}, ConfigError, r"\{nosuch\} in '\{nosuch\}' stands for nothing"),
        ({"steps": [["no-such-program"]]}, ProvisionError, r"step 1 of 1 .*cannot be started"),
        (
            {"steps": [["true"], ["sh", "-c", "echo no room >&2; exit 3"]]}, ProvisionError,
            r"step 2 of 2 of the build \(sh\) failed with status 3: no room .*build\.log",
        ),
        ({"collect": {"bin/x": "{prefix}/none"}}, ProvisionError, r"made no none.*build\.collect: bin/x"),
        ({"collect": {"bin/x": "../../x"}}, ConfigError, "is not in the folder of the build"),
        ({"subfolder": "none"}, ProvisionError, "the sources have no folder none"),
        ({"subfolder": "../.."}, ConfigError, "is not within them"),
        ({"collect": {"share": "{source}"}}, IntegrityError, "there is no bin/llama-mtmd-cli, which its"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_says_why_and_leaves_nothing(
    tree: Path, tmp_path: Path, changes: dict[str, Any], error: type[PocketvlmError], message: str
) -> None:
    quick = {"steps": [["true"]], "collect": {"bin/llama-mtmd-cli": "{source}/words"}}
    with pytest.raises(error, match=message):
        build(tmp_path, tree, **{**quick, **changes})
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_build_cannot_see_what_a_person_has_set_nor_write_to_their_home(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    show = 'env > {prefix}/env; echo x > "$HOME/mine"; printf "#!/bin/sh\\n" > {prefix}/run; echo ${cc:-none}'
    collect = {"bin/llama-mtmd-cli": "{prefix}/run", "env": "{prefix}/env"}
    made = build(tmp_path, tree, steps=[["sh", "-c", show]], collect=collect)
    seen = dict(line.split("=", 1) for line in (made / "env").read_text().splitlines())
    assert "MINE" not in seen and seen["SOURCE_DATE_EPOCH"] == "315532800"
    assert {"CC", "CXX", "AR", "RANLIB", "CFLAGS", "LDFLAGS"} <= set(seen)
    assert not (tmp_path / "home/mine").exists()
    assert (tmp_path / "build.log").read_text().rstrip().endswith("none"), "a shell's own ${cc} is left to it"


def prebuilt(base: Path, origin: Path, target: str = HOST, **changes: Any) -> Path:
    sha256 = changes.pop("sha256", None) or (
        tree_sha256(origin) if origin.is_dir() else sha256_file(origin) if origin.exists() else "0" * 64
    )
    destination = base / "taken" / "x"
    take_prebuilt(
        origin=origin, source={"kind": "prebuilt", "name": origin.name, "sha256": sha256}, target=target,
        destination=destination, required=REQUIRED, **changes,
    )  # fmt: skip
    return destination


@pytest.fixture
def archive(bundle: Path, tmp_path: Path) -> Path:
    framework_tree.pack(bundle, tmp_path / "binaries.tar.gz")
    return tmp_path / "binaries.tar.gz"


def test_an_archive_and_a_folder_of_binaries_become_the_same_bundle(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(bundle, folder)
    (folder / "manifest.json").unlink()
    found = [prebuilt(tmp_path / "a", archive), prebuilt(tmp_path / "b", folder)]
    files = [read_json(made / "manifest.json")["files"] for made in found]
    assert files[0] == files[1] == read_json(bundle / "manifest.json")["files"]
    manifest = read_json(found[0] / "manifest.json")
    assert manifest["toolchain"] == {"name": "prebuilt", "version": "not known"}
    assert manifest["source"]["name"] == "binaries.tar.gz" and str(tmp_path) not in str(manifest)


def test_of_binaries_laid_out_otherwise_the_named_ones_are_taken(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "out").mkdir(parents=True)
    shutil.copy2(bundle / REQUIRED[0], folder / "out/cli")
    (folder / "out/debug").write_text("large")
    made = prebuilt(tmp_path, folder, collect={REQUIRED[0]: "out/cli"})
    assert set(read_json(made / "manifest.json")["files"]) == set(REQUIRED)


def test_binaries_of_another_processor_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=rf"llama-mtmd-cli is for \w+ and the target is {OTHER}"):
        prebuilt(tmp_path, archive, OTHER)


def test_binaries_that_are_not_there_or_not_what_was_pinned(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"the binaries are not there .*none\.tar"):
        prebuilt(tmp_path, tmp_path / "none.tar")
    with pytest.raises(IntegrityError, match=r"binaries\.tar\.gz has sha256 .*, expected 1111"):
        prebuilt(tmp_path, archive, sha256="1" * 64)
    assert not (tmp_path / "taken/x").exists()


def test_binaries_that_may_not_be_read_are_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    sha256 = sha256_file(archive)
    monkeypatch.setattr(prebuilt_module, "sha256_file", refuse)
    with pytest.raises(ProvisionError, match=r"cannot be read .*binaries\.tar\.gz\)\. Make it readable"):
        prebuilt(tmp_path, archive, sha256=sha256)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../evil", b"x", "leaves the folder"),
        ("/etc/evil", b"x", "leaves the folder"),
        ("bin/llama-mtmd-cli", b"no program", "bin/llama-mtmd-cli is no ELF program"),
        ("bin/other", b"x", "there is no bin/llama-mtmd-cli, which its adapter runs; there is bin/other"),
        ("bin/llama-mtmd-cli", b"\x7fELF\x02\x01\x01" + bytes(9), "is a damaged program"),
    ],
)
def test_archives_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(IntegrityError, match=message):
        prebuilt(tmp_path, path)
    assert not (tmp_path / "taken/x").exists() and not (tmp_path.parent / "evil").exists()


def zipped(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return path


def test_a_zip_archive_becomes_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    files = {name: (bundle / name) for name in read_json(bundle / "manifest.json")["files"]}
    members = ((f"top/{name}", path.read_bytes(), path.stat().st_mode) for name, path in files.items())
    made = prebuilt(tmp_path, zipped(tmp_path / "b.zip", *members))
    assert read_json(made / "manifest.json")["files"] == read_json(bundle / "manifest.json")["files"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../evil", b"x", 0o644)], "that leaves the folder"),
        ([("/etc/evil", b"x", 0o644)], "that leaves the folder"),
        ([("a\\..\\..\\evil", b"x", 0o644)], "that leaves the folder"),
        ([("link", b"/etc", 0o120777)], "that is a link"),
        ([("a", b"x", 0o644), ("a", b"y", 0o644)], "twice, or below a file"),
        ([("a", b"x", 0o644), ("a/b", b"y", 0o644)], "twice, or below a file"),
        ([("bomb", bytes(1 << 20), 0o644)], "unpacks to more than it may"),
        ([("a" * 300, b"x", 0o644)], "is damaged or encrypted: File name too long"),
    ],
)
def test_zip_archives_that_cannot_be_used(
    tmp_path: Path, members: list[tuple[str, bytes, int]], message: str
) -> None:
    with pytest.raises(IntegrityError, match=message):
        unpack_zip(zipped(tmp_path / "bad.zip", *members), tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_zip_archive_is_never_a_crash(tmp_path: Path, packing: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", packing) as packed:
        packed.writestr("a", b"some text" * 9)
    whole = (tmp_path / "a.zip").read_bytes()
    for at in range(0, len(whole), 3):
        (tmp_path / "x.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(IntegrityError):
            unpack_zip(tmp_path / "x.zip", tmp_path / f"out-{at}")


def library(*needed: str, machine: int = 183) -> bytes:
    """A 64-bit little-endian ELF file that needs these libraries, as small as one can be."""
    names, offsets = b"\0", []
    for name in needed:
        offsets.append(len(names))
        names += name.encode() + b"\0"
    entries = [*((1, at) for at in offsets), (5, 0x1000), (10, len(names)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    strings, table = 64 + 2 * 56, 64 + 2 * 56 + len(names)
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 4, strings, 0x1000, 0, len(names), len(names), 1)
    dyn = struct.pack("<IIQQQQQQ", 2, 4, table, 0x2000, 0, len(dynamic), len(dynamic), 1)
    return head + load + dyn + names + dynamic


ANDROID = "aarch64-linux-android"


@pytest.mark.parametrize(
    ("needed", "beside", "known", "lacking"),
    [
        (("libc.so", "libm.so", "liblog.so", "libOpenCL.so"), (), (), None),
        (("libc++_shared.so",), (), (), "libc++_shared.so"),
        (("libc++_shared.so",), ("libc++_shared.so",), (), None),
        (("libQnnHtp.so",), (), ("libQnnHtp.so",), None),
    ],
)
def test_a_library_that_a_phone_has_not_must_be_in_the_bundle(
    tmp_path: Path,
    needed: tuple[str, ...],
    beside: tuple[str, ...],
    known: tuple[str, ...],
    lacking: str | None,
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin/run").write_bytes(library(*needed))
    for name in beside:
        (tmp_path / "lib" / name).write_bytes(library())
    assert elf.read(tmp_path / "bin/run") == elf.Elf(183, needed)
    if lacking is None:
        elf.check_bundle(tmp_path, target=ANDROID, required=["bin/run"], libraries=known)
    else:
        with pytest.raises(
            IntegrityError, match=rf"bin/run needs {lacking.replace('+', '.')}, which is neither"
        ):
            elf.check_bundle(tmp_path, target=ANDROID, required=["bin/run"], libraries=known)


def test_a_phones_bundle_may_hold_what_its_dsp_loads_and_no_other_may(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin/run").write_bytes(library("libc.so"))
    # As llama.cpp's Hexagon backend and QNN's skeletons are: of another processor, with its own libraries.
    (tmp_path / "lib/libggml-htp-v73.so").write_bytes(library("libc++abi.so.1", machine=164))
    elf.check_bundle(tmp_path, target=ANDROID, required=["bin/run"])
    with pytest.raises(
        IntegrityError, match=r"libggml-htp-v73\.so is for hexagon and the target is aarch64-linux-musl"
    ):
        elf.check_bundle(tmp_path, target="aarch64-linux-musl", required=["bin/run"])
    (tmp_path / "bin/run").write_bytes(library(machine=164))
    with pytest.raises(
        IntegrityError, match="bin/run is for hexagon and the target is aarch64-linux-android"
    ):
        elf.check_bundle(tmp_path, target=ANDROID, required=["bin/run"])


@pytest.mark.parametrize("at", range(0, 240, 7))
def test_a_damaged_library_is_never_a_crash(tmp_path: Path, at: int) -> None:
    whole = library("libc.so", "libm.so")
    for damaged in (whole[:at], whole[:at] + b"\xff" * 8 + whole[at + 8 :]):
        (tmp_path / "x").write_bytes(damaged)
        try:
            elf.read(tmp_path / "x")
        except IntegrityError as error:
            assert "damaged" in str(error)


def test_what_is_said_of_a_source_names_no_folder(tree: Path) -> None:
    source = {"kind": "directory", "path": str(tree), "commit": "abcdef0"}
    said = sources.pinned(source, HOST)
    assert said == {"kind": "directory", "name": "tree", "sha256": tree_sha256(tree), "commit": "abcdef0"}
    sdist = {"kind": "sdist", "project": "p", "version": "1", "sha256": "0" * 64, "commit": "abcdef0"}
    assert sources.pinned(sdist, HOST) == {key: value for key, value in sdist.items() if key != "kind"}


def test_a_version_that_is_not_there_suggests_one_that_is() -> None:
    frameworks = {"f": framework_tree.entry({"kind": "directory", "path": "/nowhere/at/all"})}
    with pytest.raises(ConfigError, match=r"the version 2 of f is not known.*1"):
        sources.source_of(frameworks, "f", "2", HOST)
    with pytest.raises(ConfigError, match=r"version 1, all, does not exist.*check_frameworks"):
        sources.source_of(frameworks, "f", "1", HOST)


def test_placeholders_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs/frameworks.md").read_text()
    for name in recipes.NAMES:
        assert f"`{{{name}}}`" in text
