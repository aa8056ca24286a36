"""The table of hub models and its lock: asking, keeping, refusing."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from pocketvlm.config.schema import load_yaml, validate
from pocketvlm.errors import ConfigError, ProvisionError
from pocketvlm.weights import hub as catalogue
from pocketvlm.weights.hub_access import Patience, ask
from pocketvlm.weights.lock import load_lock, lock_path, save_lock, update_lock
from tests import hub_server
from tests.hub_server import OTHER_REVISION, REPOSITORY, REVISION, Hub, busy
from tests.hub_target import point_at

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "config/models.yaml"
HASTE = Patience(tries=3, pause_s=0.01, longest_s=5, timeout_s=2)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {name: hub_server.tiny_gguf(tmp_path, size) for size, name in ((1000, "m-Q4_0"), (500, "mmproj"))}
    with hub_server.serving(**files) as served:
        point_at(monkeypatch, served.url, tmp_path / "home")
        yield served


def entry(**changes: Any) -> dict[str, Any]:
    files = {"model-Q4_0": "m-Q4_0.gguf", "mmproj-f16": "mmproj.gguf"}
    hub = {"repository": REPOSITORY, "licence": "apache-2.0", "files": files}
    return {"kind": "hub", "chat_template": "vicuna", "quantisations": ["Q4_0"], "hub": {**hub, **changes}}


def asked(name: str, entry: Any) -> dict[str, Any]:
    return ask(name, entry, HASTE)


def locked(revision: str = REVISION) -> dict[str, Any]:
    pinned = {"bytes": 1, "sha256": "0" * 64}
    files = {"model-Q4_0": "m-Q4_0.gguf", "mmproj-f16": "mmproj.gguf"}
    return {
        "repository": REPOSITORY,
        "revision": revision,
        "files": {part: {"file": file, **pinned} for part, file in files.items()},
    }


def test_the_hub_is_asked_for_revision_size_and_hash(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "config" / "models.lock.yaml"
    update_lock(path, {"some": entry()}, [], asked)
    found = load_lock(path)["some"]
    assert (found["repository"], found["revision"]) == (REPOSITORY, REVISION)
    for part, file in entry()["hub"]["files"].items():
        data = hub.repositories[REPOSITORY][file]
        sha256 = hashlib.sha256(data).hexdigest()
        assert found["files"][part] == {"file": file, "bytes": len(data), "sha256": sha256}
    assert path.read_text().startswith("# ") and "lock_models" in path.read_text()
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    assert catalogue.unavailable("some", entry(), load_lock(path)) is None


def test_only_the_named_models_are_asked_for(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "models.lock.yaml"
    save_lock(path, {"gone from the table".replace(" ", "-"): locked(), "second": locked(OTHER_REVISION)})
    update_lock(path, {"first": entry(), "second": entry()}, ["first"], asked)
    lock = load_lock(path)
    assert set(lock) == {"first", "second", "gone-from-the-table"}
    assert lock["first"]["revision"] == REVISION and lock["second"]["revision"] == OTHER_REVISION
    assert len(hub.asked) == 1


def test_what_could_not_be_locked_keeps_its_old_entry(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "models.lock.yaml"
    save_lock(path, {"first": locked(OTHER_REVISION)})
    models = {"first": entry(repository="someone/else"), "second": entry(), "third": entry(branch="x")}
    with pytest.raises(
        ProvisionError, match=r"first could not be locked \(also third\): the hub has no some"
    ):
        update_lock(path, models, [], asked)
    lock = load_lock(path)
    assert lock["first"] == locked(OTHER_REVISION)
    assert lock["second"]["revision"] == REVISION and "third" not in lock


def test_a_failure_in_the_middle_of_writing_leaves_the_old_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models.lock.yaml"
    save_lock(path, {"first": locked()})
    before = path.read_bytes()

    def break_off(value: Any, stream: Any, **_: Any) -> None:
        stream.write("format: 1\nmodels:")
        raise OSError("the disk is full")

    monkeypatch.setattr(yaml, "safe_dump", break_off)
    with pytest.raises(OSError, match="full"):
        save_lock(path, {"first": locked(OTHER_REVISION)})
    assert path.read_bytes() == before and [child.name for child in tmp_path.iterdir()] == [path.name]


def test_a_busy_hub_is_waited_for(hub: Hub) -> None:
    hub.faults["api"] = [busy(429, "0"), busy(503)]
    assert asked("some", entry())["revision"] == REVISION
    hub.faults["api"] = [busy(503, "0")] * 9
    with pytest.raises(ProvisionError, match="answered 503, 3 times in a row"):
        asked("some", entry())


def test_a_file_that_is_not_there_names_the_closest(hub: Hub) -> None:
    with pytest.raises(ConfigError, match=r"no file 'm-Q4_1\.gguf'") as caught:
        asked("some", entry(files={"model-Q4_0": "m-Q4_1.gguf"}))
    assert caught.value.where == "config/models.yaml: some.hub.files.model-Q4_0"
    assert "Did you mean m-Q4_0.gguf?" in caught.value.do


def test_a_file_without_a_hash_is_refused(hub: Hub) -> None:
    with pytest.raises(ProvisionError, match="no sha256 of README"):
        asked("some", entry(files={"model-Q4_0": "README.md"}))


@pytest.mark.parametrize("answer", [b"<html>", b"[1]", b'{"message": "hello"}'])
def test_an_answer_that_is_none_of_a_hub(hub: Hub, answer: bytes) -> None:
    def other(request: hub_server.Request) -> bool:
        request.reply(200, answer, Content_Type="application/json")
        return True

    hub.faults["api"] = [other]
    with pytest.raises(ProvisionError, match="not a hub's") as caught:
        asked("some", entry())
    assert caught.value.do == "Check HF_ENDPOINT"


def test_a_gated_repository_and_another_licence_are_said(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.token, hub.licence = "hf_good", "llama2"
    with caplog.at_level(logging.WARNING, "pocketvlm"):
        asked("some", entry())
    said = " ".join(record.getMessage() for record in caplog.records)
    assert f"{REPOSITORY} is gated" in said and "licence apache-2.0" in said and "says llama2" in said


def test_offline_the_hub_is_not_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ProvisionError, match="HF_HUB_OFFLINE is set"):
        asked("some", entry())
    assert hub.asked == []


def test_a_name_that_is_none_of_a_hub_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'frist' is no model of the hub") as caught:
        update_lock(tmp_path / "lock.yaml", {"first": entry()}, ["frist"], asked)
    assert "Did you mean first?" in caught.value.do


def test_a_model_without_files_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lock.yaml"
    with caplog.at_level(logging.WARNING, "pocketvlm"):
        update_lock(path, {"first": entry(files={}, unpublished="nobody made one")}, [], asked)
    assert load_lock(path) == {} and "nobody made one" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [(REVISION, "main"), ("bytes: 1", "bytes: 0"), ("0" * 64, "0" * 63), ("format: 1", "format: 2")],
)
def test_a_lock_that_was_edited_badly_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "lock.yaml"
    save_lock(path, {"first": locked()})
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_lock(path)
    assert str(path) in str(caught.value)


def test_why_a_model_cannot_be_had() -> None:
    lock = {"some": locked()}
    some = entry()
    assert catalogue.unavailable("some", some, lock) is None
    assert catalogue.unavailable("synthetic", {"kind": "synthetic"}, {}) is None
    assert catalogue.unavailable("some", some, {}) == (
        "some is not locked: run snakemake --cores 1 lock_models where the hub can be reached"
    )
    assert catalogue.unavailable("some", entry(repository="a/b"), lock) == (
        f"some was locked in {REPOSITORY} and is now a/b: run snakemake --cores 1 lock_models again"
    )
    more = copy.deepcopy(some)
    more["hub"]["files"]["model-Q8_0"] = "m-Q8_0.gguf"
    assert catalogue.unavailable("some", more, lock, "Q4_0") is None
    for quantisation in ("Q8_0", None):
        assert "model-Q8_0 of some is not locked" in str(
            catalogue.unavailable("some", more, lock, quantisation)
        )
    none = entry(files={}, unpublished="nobody made one")
    assert catalogue.unavailable("some", none, lock) == "some: nobody made one"


def test_what_a_download_is_told() -> None:
    lock = {"some": locked()}
    assert catalogue.pin("some", entry(), lock, "mmproj-f16") == {
        "repository": REPOSITORY,
        "revision": REVISION,
        "file": "mmproj.gguf",
        "bytes": 1,
        "sha256": "0" * 64,
        "type": None,
    }
    assert catalogue.pin("some", entry(), lock, "model-Q4_0")["type"] == "Q4_0"
    refused = catalogue.pin("some", entry(), {}, "mmproj-f16")
    assert refused["unavailable"] == "some is not locked" and "lock_models" in refused["do"]


def test_which_files_are_fetched_and_which_are_made() -> None:
    files = {"model-f16": "f.gguf", "model-Q4_K_M": "q.gguf", "mmproj-f16": "p.gguf"}
    some = {**entry(files=files), "quantisations": ["Q4_0", "Q4_K_M"], "quantiser": {}}
    assert catalogue.fetched(some) == list(files)
    assert catalogue.made_here(some) == ["Q4_0"]
    assert catalogue.wanted(some, "Q4_0") == ["model-f16", "mmproj-f16"]
    assert catalogue.wanted(some, "Q4_K_M") == ["model-Q4_K_M", "mmproj-f16"]
    catalogue.check({"some": some})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hub": {**entry()["hub"], "files": {"model-Q4_0": "m.gguf"}}}, "no vision projector"),
        ({"hub": {**entry()["hub"], "unpublished": "none"}}, "files and a reason"),
        ({"quantisations": ["Q4_0", "Q8_0"]}, "no file of Q8_0 and none to make it from"),
        (
            {"hub": {**entry()["hub"], "files": {"model-f16": "f", "mmproj-f16": "p"}}},
            "no quantiser is named",
        ),
        ({"sha256": {}}, "'sha256' belongs to synthetic weights"),
    ],
)
def test_an_entry_that_contradicts_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.check({"some": {**entry(), **changes}})


def test_the_models_of_the_study_are_in_the_table() -> None:
    models = load_yaml(TABLE, "models")
    catalogue.check(models)
    paper = yaml.safe_load((ROOT / "config/paper/arxiv-2507.08505.yaml").read_text())
    studied = {stack["model"] for stack in paper["stacks"]}
    assert studied | {"mobilevlm-v2-3b"} <= {name for name in models if catalogue.is_hub(models[name])}
    for stack in paper["stacks"]:
        weights_format = {"mllm": "mllm", "mlc-imp": "mlc"}.get(stack["framework"])
        if weights_format:
            reason = catalogue.other_format(stack["model"], models[stack["model"]], weights_format)
            assert "not provisioned" in reason
    lock = load_lock(lock_path(TABLE))
    for name in set(lock) & set(models):
        assert catalogue.unavailable(name, models[name], lock) is None


def test_the_schema_wants_what_each_kind_needs() -> None:
    validate({"some": entry()}, "models", where="here")
    for broken in ({**entry(), "hub": None}, {k: v for k, v in entry().items() if k != "hub"}):
        with pytest.raises(ConfigError, match="hub"):
            validate({"some": broken}, "models", where="here")
    for part in ("model-q4", "mmproj-Q8_0", "tokenizer"):
        with pytest.raises(ConfigError):
            validate({"some": entry(files={part: "x.gguf"})}, "models", where="here")
    for file in ("/etc/passwd", "a b.gguf"):
        with pytest.raises(ConfigError):
            validate({"some": entry(files={"model-Q4_0": file})}, "models", where="here")
