"""Users' own tables of frameworks and weights: what is laid over what, what contradicts, what lacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.config import frameworks, study
from pocketvlm.config.schema import load_yaml
from pocketvlm.errors import ConfigError, IntegrityError, ProvisionError
from pocketvlm.provenance import read_json, sha256_file
from pocketvlm.provision.check import check_frameworks
from pocketvlm.provision.tree import tree_sha256
from pocketvlm.share import configured
from pocketvlm.weights import formats
from tests import framework_tree

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "config/frameworks.yaml"


def overlay(path: Path, **entries: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return framework_tree.overlay(path, **entries)


def test_an_overlay_adds_and_replaces_entries_and_leaves_the_rest(tmp_path: Path) -> None:
    before = frameworks.load(TABLE)
    version = {"source": {"kind": "directory", "path": "llama"}, "quirks": {"marker": "<x>"}}
    mine = tmp_path / "own/mine.yaml"
    overlay(mine)
    mine.write_text(
        yaml.safe_dump(
            {
                "llama.cpp": {
                    "versions": {"1.0": version},
                    "backends": {"opencl": {"options": {"GGML_OPENCL": "ON"}}},
                    "build": {"targets": ["llama-mtmd-cli"]},
                },
            }
        )
    )
    after = frameworks.load(TABLE, [mine])["llama.cpp"]
    assert after["versions"]["1.0"]["source"]["path"] == str(tmp_path / "own/llama"), "from the file's folder"
    assert {k: v for k, v in after["versions"].items() if k != "1.0"} == before["llama.cpp"]["versions"]
    assert set(after["backends"]) == {*before["llama.cpp"]["backends"], "opencl"}
    assert after["build"] == {**before["llama.cpp"]["build"], "targets": ["llama-mtmd-cli"]}
    assert frameworks.load(TABLE) == before, "nothing of it stays"


def test_a_versions_own_build_replaces_keys_of_the_frameworks() -> None:
    entry = {
        "build": {"targets": ["a"], "options": {}},
        "versions": {"1": {"build": {"targets": ["b"]}}, "2": {}},
    }
    assert frameworks.recipe(entry, "1") == {"targets": ["b"], "options": {}}
    assert frameworks.recipe(entry, "2") == {"targets": ["a"], "options": {}}


def test_two_overlays_that_disagree_are_refused_and_those_that_agree_are_not(tmp_path: Path) -> None:
    one = overlay(tmp_path / "one.yaml", own_stand_in=framework_tree.from_tree("/a"))
    same = overlay(tmp_path / "same.yaml", own_stand_in=framework_tree.from_tree("/a"))
    other = overlay(tmp_path / "other.yaml", own_stand_in=framework_tree.from_tree("/b"))
    assert "own-stand-in" in frameworks.load(TABLE, [one, same])
    with pytest.raises(
        ConfigError, match=r"one\.yaml and \S+other\.yaml say different things of own-stand-in"
    ):
        frameworks.load(TABLE, [one, other])


SDIST = {"kind": "sdist", "project": "p", "version": "1", "sha256": "0" * 64, "commit": "abcdef0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "nosuch"}, r"unknown framework adapter 'nosuch'.*own-stand-in\.adapter.*llamacpp"),
        ({"adapter": None}, r"has a source and no adapter"),
        ({"versions": {"1": {"source": SDIST, "unprovisioned": "x"}}}, r"a source, an app or a reason"),
        ({"versions": {"1": {"quirks": {}}}}, r"a source, an app or a reason"),
        ({"versions": {}}, "has no versions"),
        ({"backends": {}}, "has no backends"),
        ({"build": None}, r"the recipe to build it with cmake lacks targets, collect.*versions\.1\.build"),
        ({"build": {"tool": "command", "collect": {}}}, "with command lacks steps"),
        ({"build": {"tool": "make"}}, r"build\.tool"),
        (
            {"build": {"tool": "command", "steps": [["{nosuch}"]], "collect": {}}},
            r"\{nosuch\} .*stands for nothing",
        ),
        ({"build": {"tool": "command", "steps": [["x"]], "collect": {"../x": "x"}}}, "collect"),
        (
            {"versions": {"1": {"source": {"kind": "prebuilt"}}}},
            "need path and sha256, once or for each target",
        ),
        ({"versions": {"1": {"source": {"kind": "prebuilt", "path": "x"}}}}, "need path and sha256"),
        ({"versions": {"1": {"source": {"kind": "git"}}}}, r"sdist, directory, prebuilt or wheel"),
        ({"versions": {"1": {"source": {**SDIST, "path": "x"}}}}, "'path' is not known"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    entry = {**framework_tree.from_tree("tree"), **changes}
    entry = {key: value for key, value in entry.items() if value is not None}
    mine = overlay(tmp_path / "mine.yaml", own_stand_in=entry)
    with pytest.raises(ConfigError, match=message):
        frameworks.load(TABLE, [mine])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {versions: {1.0: {unprovisioned: y}}}", "'1.0' is a float and no text: write it in quotes"),
        ("x: {versions: {2026-10-01: {unprovisioned: y}}}", "'2026-10-01' is a date and no text"),
        ("x: {backends: {on: {}}}", r"'on' is a bool and no text.*mine\.yaml:1"),
        ("? [a]\n: {}", "a key is a list and no text"),
        ("x: {versions: {'1': {source: {kind: directory, path: ~nobody-at-all/x}}}}", "no home folder for"),
        (
            "x: {versions: {'1': {source: {kind: wheel, targets: {t: {file: x.whl, sha256: '0'}}}}}}".replace(
                "'0'", f"'{'0' * 64}'"
            ),
            r"targets\.t\.file.*<project>-<version>-<python>-<abi>-<platform>",
        ),
    ],
)
def test_an_overlay_that_yaml_reads_as_something_else(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        frameworks.load(TABLE, [tmp_path / "mine.yaml"])


def test_an_overlay_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file .*none\.yaml"):
        frameworks.load(TABLE, [tmp_path / "none.yaml"])


def test_overlays_are_named_in_two_ways() -> None:
    catalogues = {"frameworks_overlay": ["a.yaml", "b.yaml"]}
    found = study.overlays({"frameworks": "c.yaml, ~/d.yaml", "catalogues": catalogues})
    assert found == [Path("a.yaml"), Path("b.yaml"), Path("c.yaml"), Path.home() / "d.yaml"]
    assert study.overlays({"catalogues": {"frameworks_overlay": "a.yaml"}}) == [Path("a.yaml")]
    assert study.overlays({"catalogues": {}}) == []
    with pytest.raises(ConfigError, match="no home folder for '~nobody-at-all/x'"):
        study.overlays({"frameworks": "~nobody-at-all/x", "catalogues": {}})


class Root:
    """A copy of the configuration with a small experiment of a framework of one's own."""

    def __init__(self, folder: Path, entry: dict[str, Any], *, rows: bool) -> None:
        self.path = folder
        shutil.copytree(ROOT / "config", folder / "config")
        self.mine = overlay(folder / "mine/frameworks.yaml", own_stand_in=entry)
        text = framework_tree.experiment("own-stand-in").replace("workload: stand-in", "workload: coffee")
        text = text if rows else text.replace("absent: row", "absent: refuse")
        (folder / "config/experiments/own.yaml").write_text(text)

    def study(self, **options: Any) -> study.Study:
        """Resolve the experiment."""
        given = load_yaml(ROOT / "config/config.yaml", "config")
        given |= {"experiment": "own", "frameworks": str(self.mine)}
        return study.load(given, self.path, **options)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            {"kind": "directory", "path": "none"},
            r"the source tree of version 1, none, does not exist",
        ),
        ({"kind": "prebuilt", "path": "none.tar", "sha256": "0" * 64}, r"none\.tar, does not exist"),
        (
            {"kind": "prebuilt", "targets": {"aarch64-linux-android": {"path": "x", "sha256": "0" * 64}}},
            rf"no binaries for {host_target()}, only for aarch64-linux-android: add them to its source, or "
            "give the backend `driver: true`",
        ),
        ({"kind": "directory", "path": "frameworks.yaml"}, r"frameworks\.yaml, is no folder: unpack it"),
        (
            {"kind": "prebuilt", "path": "/dev/null", "sha256": "0" * 64},
            "null, is neither a folder nor a file",
        ),
        ({"kind": "directory", "path": "x" * 5000}, r"cannot be reached \(File name too long\)"),
    ],
)
def test_what_is_not_there_is_a_row_or_an_error_with_the_same_reason(
    tmp_path: Path, source: dict[str, Any], reason: str
) -> None:
    entry = {**framework_tree.from_tree("x"), "versions": framework_tree.entry(source)["versions"]}
    (cell,) = Root(tmp_path / "a", entry, rows=True).study().cells
    assert cell.unavailable is not None
    with pytest.raises(ConfigError, match=rf"{reason}.*cells\.0\.framework.*absent: row"):
        Root(tmp_path / "b", entry, rows=False).study()


def test_the_overlay_of_the_documentation_gives_the_shipped_phone_its_binaries(tmp_path: Path) -> None:
    text = (ROOT / "docs/frameworks-mllm-mlc.md").read_text()
    (written,) = (part for part in text.split("```yaml\n")[1:] if part.startswith("mllm:"))
    (tmp_path / "mine.yaml").write_text(written.partition("```")[0].replace("…", f"'{'0' * 64}'"))
    for name in ("mllm-llava", "mlc-chat"):
        (tmp_path / name).mkdir()
    phone = load_yaml(ROOT / "config/devices/oneplus13r.yaml", "device")
    table = frameworks.load(TABLE, [tmp_path / "mine.yaml"])
    for name, version, backend in (("mllm", "1.llava", "cpu"), ("mlc-llm", "0.1", "opencl")):
        driver = table[name]["backends"][backend].get("driver")
        target = phone["driver_target" if driver else "target"]
        assert frameworks.missing(table[name], version, target) is None


def test_a_received_study_needs_nothing_here_and_tells_no_folder(tmp_path: Path) -> None:
    root = Root(tmp_path, framework_tree.from_tree("secret/tree"), rows=False)
    (root.mine.parent / "secret/tree").mkdir(parents=True)
    sent = root.study()
    written = configured.written(sent)
    assert str(tmp_path) not in written["config/frameworks.yaml"]
    assert "secret" not in written["config/frameworks.yaml"]
    assert "path: tree" in written["config/frameworks.yaml"]
    shutil.rmtree(root.mine.parent / "secret")
    assert root.study(here=False).cells[0].id == sent.cells[0].id


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A model's entry with weights that a user gives, beside its table."""
    (tmp_path / "w/shards").mkdir(parents=True)
    (tmp_path / "w/model.odd").write_text("weights")
    (tmp_path / "w/shards/0.bin").write_text("0")
    roles = {
        "model": {"path": "w/model.odd", "sha256": sha256_file(tmp_path / "w/model.odd")},
        "shards": {"path": "w/shards", "sha256": tree_sha256(tmp_path / "w/shards")},
    }
    return {"quantisations": ["Q4_0"], "formats": {"odd": {"Q4": roles}}}


def why(entry: dict[str, Any], folder: Path, quantisation: str = "Q4", *roles: str) -> str | None:
    wanted = roles or ("model", "shards")
    return formats.unavailable("m", entry, quantisation, weights_format="odd", roles=wanted, folder=folder)


def test_weights_of_another_format_say_what_lacks(given: dict[str, Any], tmp_path: Path) -> None:
    assert why(given, tmp_path) is None
    assert "lack the role vocabulary" in str(why(given, tmp_path, "Q4", "model", "vocabulary"))
    assert "gives no odd weights at Q8 (it gives Q4)" in str(why(given, tmp_path, "Q8"))
    about = {"quantisations": [], "formats": {"odd": {"unprovisioned": "ask somebody"}}}
    assert "gives no odd weights at Q4: ask somebody; name them by role (model, shards)" in str(
        why(about, tmp_path)
    )
    (tmp_path / "w/model.odd").unlink()
    assert "the odd weights model.odd do not exist" in str(why(given, tmp_path))
    given["formats"]["odd"]["Q4"]["model"]["path"] = "x" * 5000
    assert "xx do not exist" in str(why(given, tmp_path))


def test_weights_are_taken_with_their_record_and_refused_when_they_are_others(
    given: dict[str, Any], tmp_path: Path
) -> None:
    for role, kind in (("model", "file"), ("shards", "folder")):
        source, to = tmp_path / given["formats"]["odd"]["Q4"][role]["path"], tmp_path / "to"
        sha256 = given["formats"]["odd"]["Q4"][role]["sha256"]
        taken = {"weights_format": "odd", "destination": to / role, "record": to / f"{role}.json"}
        formats.take_weights(source, sha256, **taken)
        record = read_json(to / f"{role}.json")
        assert (record["kind"], record["sha256"], record["weights_format"]) == (kind, sha256, "odd")
        assert record["bytes"] == {"model": 7, "shards": 1}[role]
        assert formats.checked_folder(to / role) == sha256
        with pytest.raises(IntegrityError, match=r"has sha256 .*, expected 1{64}"):
            formats.take_weights(source, "1" * 64, **taken)
        with pytest.raises(ProvisionError, match="the odd weights are not there"):
            formats.take_weights(tmp_path / "none", sha256, **taken)


def test_paths_of_gguf_files_are_what_they_were() -> None:
    found = formats.paths("w/m", "Q4_K_M", weights_format="gguf", roles=("model", "mmproj"))
    assert found == {"model": "w/m/model-Q4_K_M.gguf", "mmproj": "w/m/mmproj-f16.gguf"}
    assert formats.record_path(found["model"]) == "w/m/model-Q4_K_M.json"
    found = formats.paths("w/m", "Q4_K", weights_format="mllm", roles=("model",))
    assert formats.record_path(found["model"]) == "w/m/mllm-Q4_K/model.json"


def checked(
    table: frameworks.Table,
    models: dict[str, Any],
    tools: dict[str, Any],
    folder: Path,
    *,
    driver_targets: tuple[str, ...] = (),
) -> dict[str, str]:
    """What the check says, by framework."""
    lines = check_frameworks(
        table, models, tools, targets=[host_target()], driver_targets=driver_targets, models_folder=folder,
        results=folder / "results",
    )  # fmt: skip
    said: dict[str, str] = {}
    name = ""
    for line in lines:
        name = line.partition(":")[0] if not line.startswith(" ") else name
        said[name] = f"{said.get(name, '')}\n{line}"
    return said


def test_the_check_looks_for_each_backend_where_it_would_run_and_for_what_its_build_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENCL_SDK_ROOT", "HEXAGON_SDK_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    phone = "aarch64-linux-android"
    (tmp_path / "given/bin").mkdir(parents=True)
    (tmp_path / "given/bin/llama-mtmd-cli").write_text("#!/bin/sh\n")
    source = {"path": "given", "sha256": tree_sha256(tmp_path / "given")}
    gpu = framework_tree.entry({"kind": "prebuilt", "targets": {phone: source}})
    gpu = {**gpu, "backends": {"opencl": {"driver": True}}}
    table = frameworks.load(TABLE, [overlay(tmp_path / "mine.yaml", gpu_stand_in=gpu)])
    models, tools = (load_yaml(ROOT / f"config/{name}.yaml", name) for name in ("models", "toolchains"))
    # As if an NDK were there: only what the backends need besides is asked for.
    tools["zig"]["targets"][phone] = tools["zig"]["targets"]["aarch64-linux-musl"]
    del tools["ndk"]
    said = checked(table, models, tools, tmp_path, driver_targets=(phone,))
    assert f"ok: {phone}: binaries given" in said["gpu-stand-in"]
    assert "MISSING" not in said["gpu-stand-in"], "no binaries are needed for what does not run there"
    llama = said["llama.cpp"]
    assert f"opencl-{host_target()}" not in llama and f"cpu-{phone}" not in llama
    assert f"llama.cpp-0.3.16-opencl-{phone}: MISSING: building for opencl needs Khronos' OpenCL" in llama
    assert f"llama.cpp-0.3.9-hexagon-{phone}: MISSING: version 0.3.9 has no backend hexagon" in llama
    assert f"llama.cpp-0.3.36-hexagon-{phone}: MISSING: building for hexagon needs Qualcomm's" in llama
    assert f"cpu-{host_target()}: not built yet; an experiment with it builds it" in llama
    assert "INT4 (made here from its GGUF files)" in said["mnn"]


def test_the_check_tells_every_kind_of_source(tmp_path: Path) -> None:
    tree = framework_tree.write_tree(tmp_path / "tree")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/llama-mtmd-cli").write_text("#!/bin/sh\n")
    (tmp_path / "empty").mkdir()
    entries = {
        "tree_stand_in": framework_tree.from_tree("tree"),
        "pinned_stand_in": framework_tree.from_tree("tree"),
        "script_stand_in": framework_tree.entry({"kind": "prebuilt", "path": ".", "sha256": "0" * 64}),
        "empty_stand_in": framework_tree.entry(
            {"kind": "prebuilt", "path": "empty", "sha256": tree_sha256(tmp_path / "empty")}
        ),
        "away_stand_in": framework_tree.from_tree("none"),
    }
    entries["pinned_stand_in"]["versions"]["1"]["source"]["sha256"] = "1" * 64
    table = frameworks.load(TABLE, [overlay(tmp_path / "mine.yaml", **entries)])
    models, tools = (load_yaml(ROOT / f"config/{name}.yaml", name) for name in ("models", "toolchains"))
    said = checked(table, models, tools, tmp_path)
    assert f"hash {tree_sha256(tree)}, built with zig" in said["tree-stand-in"]
    pinned = said["pinned-stand-in"]
    assert f"hash is {tree_sha256(tree)} and NOT the expected 1111" in pinned
    assert "MISSING: " in pinned and " ok: " not in pinned and "builds it" not in pinned
    assert "MISSING" in said["script-stand-in"] and "expected 0000" in said["script-stand-in"]
    assert "there is no bin/llama-mtmd-cli" in said["empty-stand-in"]
    assert "none, does not exist" in said["away-stand-in"]
    assert "archive llama-cpp-python 0.3.16 of the package index" in said["llama.cpp"]
    assert "bin/llama-mtmd-cli, and may have bin/llama-quantize" in said["llama.cpp"]
    assert "MISSING" in said["mllm"]
