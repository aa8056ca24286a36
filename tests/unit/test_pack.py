"""Archives: what is packed comes out again, and whatever is wrong with one leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.errors import ConfigError, IntegrityError, PocketvlmError, ProvisionError
from pocketvlm.provenance import canonical_json, read_json, write_json
from pocketvlm.share import archive as archives
from pocketvlm.share import compare, configured, unpack
from pocketvlm.share import pack as packing
from tests import shared_study
from tests.shared_study import ORIGIN, Sent, members, write_members

INDEX = "blocks/local.json"


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Results that belong together, and a working directory in which nothing was received."""
    here = tmp_path / "receiver"
    here.mkdir()
    monkeypatch.chdir(here)
    return shared_study.make(tmp_path)


def receive(sent: Sent, archive: Path | None = None) -> unpack.Received:
    """Look into an archive and unpack it."""
    received = unpack.look_into(str(archive or sent.archive), sent.config)
    unpack.unpack(received)
    return received


def kept() -> list[str]:
    """What there is below the folder of received results, files that were put aside included."""
    return sorted(str(path) for path in Path("results").rglob("*") if path.is_file() or ".tmp" in path.name)


def files_below(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_what_is_packed_comes_out_again(sent: Sent) -> None:
    manifest = sent.pack()
    received = receive(sent)
    assert received.root == f"results/received/handmade-{manifest.id[:8]}"
    before = {
        name: data
        for name, data in files_below(sent.root).items()
        if name.split("/")[0] in ("raw", "devices", "bundles", "weights") and not name.endswith(".lock")
    }
    after = files_below(Path(received.root))
    assert len(before) > 20
    assert {name: after[name] for name in before} == before
    assert after["handmade/cells.json"] == (sent.root / "handmade/cells.json").read_bytes()
    assert received.study.records() == sent.study.records()
    assert read_json(f"{received.root}/origin.json")["commit"] == "c" * 40
    image = Path(received.study.workloads["coffee"]["image_path"])
    assert image.read_bytes() == Path(sent.study.workloads["coffee"]["image_path"]).read_bytes()


def test_equal_contents_are_equal_bytes(sent: Sent, tmp_path: Path) -> None:
    sent.pack()
    first = sent.archive.read_bytes()
    for path in sent.root.rglob("*"):
        path.touch()
    sent.pack()
    assert sent.archive.read_bytes() == first
    for member, _ in members(sent.archive):
        assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
    assert first[4:8] == bytes(4), "the time in the header of gzip"


def test_the_manifest_has_the_hash_of_every_file(sent: Sent) -> None:
    sent.pack()
    (first, data), *rest = members(sent.archive)
    assert first.name == "handmade.pocketvlm/manifest.json"
    listed = json.loads(data)["files"]
    found = {
        member.name.removeprefix("handmade.pocketvlm/"): {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        for member, content in rest
    }
    assert found == listed


def test_no_weights_no_programs_no_serial(sent: Sent) -> None:
    device = {**sent.study.devices["local"], "transport": {"serial": "SECRET123", "server_port": 5037}}
    study = shared_study.study.replace(sent.study, devices={"local": device})
    texts = configured.written(study)
    assert "SECRET123" not in "".join(texts.values())
    assert yaml.safe_load(texts["config/devices/local.yaml"])["target"] == sent.study.cells[0].target
    sent.pack()
    endings = {Path(path).suffix for path in receive(sent).manifest.files}
    assert endings <= {".json", ".yaml", ".csv", ".png", ""}


def test_unpacking_twice_changes_nothing(sent: Sent) -> None:
    sent.pack()
    root = Path(receive(sent).root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.name != "origin.json"}
    receive(sent)
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.name != "origin.json"}
    assert {path for path in before if path.is_file()} == {path for path in after if path.is_file()}
    assert all(before[path] == after[path] for path in before if path.is_file())


def test_what_an_interrupted_unpacking_left_is_completed(sent: Sent) -> None:
    sent.pack()
    root = Path(receive(sent).root)
    before = files_below(root)
    (root / "handmade/cells.json").unlink()
    run = next(root.glob("raw/*/01"))
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
    receive(sent)
    assert files_below(root) == before


@pytest.mark.parametrize("name", ["stdout", "meta.json"])
def test_other_content_for_the_same_run_is_refused(sent: Sent, name: str) -> None:
    sent.pack()
    root = Path(receive(sent).root)
    run = next(root.glob("raw/*/00"))
    (run / name).write_text("something else\n")
    with pytest.raises(IntegrityError, match=f"{name} was changed since"):
        receive(sent)
    assert (run / name).read_text() == "something else\n", "nothing of one's own is overwritten"


def test_another_archive_of_the_same_runs_lies_beside_it(sent: Sent) -> None:
    sent.pack()
    first = receive(sent)
    before = files_below(Path(first.root))
    (sent.root / "handmade/tables/cells.csv").write_text("another\n")
    sent.pack()
    second = receive(sent)
    assert first.root != second.root
    assert files_below(Path(first.root)) == before


def test_ones_own_raw_runs_are_never_touched(sent: Sent) -> None:
    sent.pack()
    own = Path("results/raw/abc/00/meta.json")
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    receive(sent)
    assert list(Path("results/raw").rglob("*")) == [own.parent.parent, own.parent, own]


def refuse(sent: Sent, why: str, error: type[PocketvlmError] = IntegrityError) -> None:
    """An archive must be refused with that reason, and nothing of it may stay."""
    with pytest.raises(error, match=why):
        receive(sent)
    assert kept() == []
    received = Path("results/received")
    assert not received.is_dir() or list(received.iterdir()) == []


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(sent: Sent, part: float) -> None:
    sent.pack()
    data = sent.archive.read_bytes()
    sent.archive.write_bytes(data[: int(part * len(data))])
    refuse(sent, "cut short or damaged|other bytes|no manifest")


@pytest.mark.parametrize("part", [0.0, 0.05, 0.4, 0.8, 0.98, 1.0])
def test_a_flipped_bit_is_refused(sent: Sent, part: float) -> None:
    sent.pack()
    data = bytearray(sent.archive.read_bytes())
    # Past the ten bytes of gzip's header, of which time, flags for speed and system mean nothing here.
    data[10 + int(part * (len(data) - 11))] ^= 0x10
    sent.archive.write_bytes(data)
    with pytest.raises(IntegrityError):
        receive(sent)
    assert kept() == []


def test_what_follows_the_end_is_refused(sent: Sent) -> None:
    sent.pack()
    sent.archive.write_bytes(sent.archive.read_bytes() + gzip.compress(b"more"))
    refuse(sent, "goes on after its last file")


def test_no_archive_at_all(sent: Sent) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        receive(sent, Path("nowhere.tar.gz"))
    sent.archive.write_text("not an archive")
    refuse(sent, "cut short or damaged")
    write_members(sent.archive, [(tarfile.TarInfo("x/y"), b"something")])
    refuse(sent, "does not begin with a manifest")


def named(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("intruder", "why"),
    [
        (named("../../outside"), "where .* should stand"),
        (named("/tmp/outside"), "where .* should stand"),
        (named("handmade.pocketvlm/raw/../../outside"), "where .* should stand"),
        (named("handmade.pocketvlm/config/models.yaml"), "where .* should stand"),
        (named("handmade.pocketvlm/link", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (
            named("handmade.pocketvlm/link", tarfile.LNKTYPE, "manifest.json"),
            "no plain file",
        ),
        (named("handmade.pocketvlm/null", tarfile.CHRTYPE), "no plain file"),
        (named("handmade.pocketvlm/pipe", tarfile.FIFOTYPE), "no plain file"),
        (named("handmade.pocketvlm/raw", tarfile.DIRTYPE), "no plain file"),
        (named("././@LongLink", tarfile.GNUTYPE_LONGNAME), "no plain file"),
        (named("pax", tarfile.XHDTYPE), "no plain file"),
        (named("pax", tarfile.XGLTYPE), "no plain file"),
    ],
)
@pytest.mark.parametrize("place", [15, -1])
def test_intruders_are_refused_wherever_they_stand(
    sent: Sent, intruder: tarfile.TarInfo, why: str, place: int
) -> None:
    sent.pack()
    listed = members(sent.archive)
    at = len(listed) if place == -1 else place
    write_members(sent.archive, [*listed[:at], (intruder, b""), *listed[at:]])
    refuse(sent, "goes on after its last file" if place == -1 else why)


def test_a_member_twice_or_out_of_order_or_missing(sent: Sent) -> None:
    sent.pack()
    listed = members(sent.archive)
    for changed in (
        [*listed[:20], listed[19], *listed[20:]],
        [*listed[:20], listed[21], listed[20], *listed[22:]],
        [*listed[:20], *listed[21:]],
        listed[:-1],
    ):
        write_members(sent.archive, changed)
        refuse(sent, "where .* should stand|cut short or damaged")


def manifest_of(sent: Sent, edit: Callable[[dict[str, Any]], None]) -> None:
    """Write the archive again with another manifest, everything else as it is."""
    sent.pack()
    (first, data), *rest = members(sent.archive)
    record = json.loads(data)
    edit(record)
    write_members(sent.archive, [(first, canonical_json(record).encode() + b"\n"), *rest])


def first_run(record: dict[str, Any]) -> str:
    return next(path for path in sorted(record["files"]) if path.endswith("/stdout"))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda m: m.update(format=2), "has the format '2', this version reads 1"),
        (lambda m: m.update(kind="other"), "no archive of an experiment"),
        (lambda m: m.update(experiment="../up"), "names an experiment"),
        (lambda m: m.update(experiment="raw"), "names an experiment"),
        (lambda m: m.update(files=[]), "names no files"),
        (lambda m: m["files"].update({"../x": m["files"][first_run(m)]}), "which no archive holds"),
        (lambda m: m["files"].update({"/etc/x": m["files"][first_run(m)]}), "which no archive holds"),
        (lambda m: m["files"].update({"raw/x/00/y": m["files"][first_run(m)]}), "which no archive holds"),
        (lambda m: m["files"][first_run(m)].update(sha256="0" * 64), "other bytes in raw"),
        (lambda m: m["files"][first_run(m)].update(bytes=1), "not what it promised"),
        (lambda m: m["files"][first_run(m)].update(bytes=-1), "does not say what"),
        (lambda m: m["files"][first_run(m)].update(bytes=5 << 30), "more than the"),
        (lambda m: m["files"]["config/models.yaml"].update(bytes=65 << 20), "more than the"),
        (lambda m: m["files"].pop(first_run(m)), "where .* should stand"),
        (lambda m: m.update(origin={"commit": "<script>"}), "what it was packed with"),
        (lambda m: m["origin"].update(packages={"numpy": "x" * 1000}), "what it was packed with"),
    ],
)
def test_a_manifest_that_lies(sent: Sent, edit: Callable[[dict[str, Any]], None], why: str) -> None:
    manifest_of(sent, edit)
    refuse(sent, why)


def test_a_manifest_that_is_none(sent: Sent) -> None:
    sent.pack()
    (first, _), *rest = members(sent.archive)
    for data in (b"", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"kind": "pocketvlm experiment"}'):
        write_members(sent.archive, [(first, data), *rest])
        refuse(sent, "no manifest that can be read|no archive of an experiment|has the format")


def repacked(sent: Sent, edit: Callable[[dict[str, bytes]], None]) -> None:
    """Write an archive that is well made, with a true manifest, of other contents."""
    sent.pack()
    files: dict[str, Path | bytes] = {}
    contents = {
        member.name.removeprefix("handmade.pocketvlm/"): data for member, data in members(sent.archive)[1:]
    }
    edit(contents)
    files.update(contents)
    archives.write(sent.archive, "handmade", packing.described(ORIGIN), files)


def drop_run(contents: dict[str, bytes]) -> None:
    folder = next(path for path in sorted(contents) if path.endswith("/01/meta.json")).rsplit("/", 1)[0]
    for path in [path for path in contents if path.startswith(f"{folder}/")]:
        del contents[path]


def drop_cell(contents: dict[str, bytes]) -> None:
    index = json.loads(contents["handmade/blocks/local.json"])
    cell = next(run["cell"] for run in index["runs"] if run["cell"])
    index["runs"] = [run for run in index["runs"] if run["cell"] != cell]
    contents["handmade/blocks/local.json"] = json.dumps(index).encode()


def edit_json(path: str, edit: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    def change(contents: dict[str, bytes]) -> None:
        names = [name for name in sorted(contents) if name.endswith(path)]
        value = json.loads(contents[names[0]])
        edit(value)
        contents[names[0]] = json.dumps(value).encode()

    return change


def put(path: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda contents: contents.update({path: data})


def alias_bomb(contents: dict[str, bytes]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    contents["config/models.yaml"] = "\n".join(lines).encode()


def product_bomb(contents: dict[str, bytes]) -> None:
    path = "config/experiments/handmade.yaml"
    value = yaml.safe_load(contents[path])
    value["cells"][0] |= {axis: [f"x{n}" for n in range(500)] for axis in ("model", "workload", "backend")}
    contents[path] = yaml.safe_dump(value).encode()


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (drop_run, r"the run [0-9a-f]{64}/01 is missing"),
        (drop_cell, "no measured run and no reason|is in no block"),
        (put(f"raw/{'0' * 64}/00/stdout", b""), "is in no block"),
        (put("devices/local/identity.json", b"{}"), "probe-|another device"),
        (put("devices/local/peaks.json", b'{"device": "another"}'), "is not of local"),
        (edit_json("identity.json", lambda it: it.update(model="another")), "another device or probe"),
        (edit_json(INDEX, lambda it: it["runs"][0].update(meta_sha256="0" * 64)), "the index names"),
        (edit_json(INDEX, lambda it: it["runs"][1].update(round=7)), "says something else"),
        (edit_json(INDEX, lambda it: it["runs"].append(it["runs"][1])), "listed twice|measured runs"),
        (edit_json(INDEX, lambda it: it["runs"][1].update(run="../../x")), "no run of the raw store"),
        (edit_json(INDEX, lambda it: it["runs"][1].update(cell=None)), "the cell of another role"),
        (edit_json(INDEX, lambda it: it.update(runs="all")), "lists no runs"),
        (edit_json(INDEX, lambda it: it["runs"].append(7)), "no run"),
        (edit_json("meta.json", lambda it: it.update(number=9)), "the index names"),
        (edit_json("cells.json", lambda it: it["cells"][0].update(model="real")), "other weights"),
        (edit_json("cells.json", lambda it: it.update(repeats=1)), "measured runs"),
        (edit_json("cells.json", lambda it: it["cells"][0].update(unavailable="x" * 3000)), "too long"),
        (edit_json("cells.json", lambda it: it.update(title="<b>")), "not what the archive"),
        (
            edit_json("cells.json", lambda it: it["cells"][0].update(weights_kind="hub")),
            "not what the archive",
        ),
        (edit_json("cells.json", lambda it: it.update(cells=[7])), "cells.json is none"),
        (edit_json("cells.json", lambda it: it["cells"][0].pop("device")), "not of its form"),
        (edit_json("cells.json", lambda it: it.update(repeats="many")), "not of its form"),
        (edit_json(INDEX, lambda it: it["runs"][1].pop("role")), "another role|says something else"),
        (edit_json("model-Q4_0.json", lambda it: it.update(sha256="0" * 64)), "other weights"),
        (put("config/workloads/coffee.png", b"another picture"), "another workload"),
        (put("config/models.yaml", b"{"), "no plain YAML"),
        (put("config/models.yaml", b"[" * 5000), "no plain YAML|none of this version"),
        (put("config/analysis.yaml", b"gates: {}"), "none of this version"),
        (put("config/analysis.yaml", b"!!python/object/apply:os.mkdir ['owned']"), "none of this version"),
        (alias_bomb, "no plain YAML"),
        (product_bomb, "more than 10000 cells"),
    ],
)
def test_contents_that_do_not_belong_together(
    sent: Sent, edit: Callable[[dict[str, bytes]], None], why: str
) -> None:
    repacked(sent, edit)
    refuse(sent, why)
    assert not Path("owned").exists()


def test_a_device_named_like_a_way_out_is_refused(sent: Sent) -> None:
    def edit(contents: dict[str, bytes]) -> None:
        text = contents["config/experiments/handmade.yaml"].decode()
        contents["config/experiments/handmade.yaml"] = text.replace(
            "device: local", "device: ../../x"
        ).encode()

    repacked(sent, edit)
    refuse(sent, "none of this version")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda sent: next(sent.root.glob("raw/*/00/stdout")).write_text("x"), "stdout has sha256"),
        (lambda sent: next(sent.root.glob("raw/*/00/stdout")).unlink(), "stdout is missing"),
        (lambda sent: (next(sent.root.glob("raw/*/00")) / "extra").write_text(""), "were not recorded"),
        (
            lambda sent: write_json(sent.root / "devices/local/identity.json", {"id": "x"}),
            "probe-None|another",
        ),
    ],
)
def test_nothing_is_packed_that_does_not_belong_together(
    sent: Sent, spoil: Callable[[Sent], object], why: str
) -> None:
    spoil(sent)
    with pytest.raises(IntegrityError, match=why):
        sent.pack()
    assert not sent.archive.exists()


def test_a_full_disk_is_told_before_anything_is_written(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    sent.pack()
    full = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: full)
    refuse(sent, "1000 B are free", ProvisionError)
    sent.archive.unlink()
    with pytest.raises(ProvisionError, match="are needed"):
        sent.pack()
    assert not sent.archive.exists()


def test_the_senders_table_is_compared(sent: Sent, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.csv", tmp_path / "ours.csv"
    theirs.write_text("a\nb\nc\n")
    ours.write_text("a\nb\nc\n")
    origin = {**packing.described(ORIGIN), "manifest_sha256": "f" * 64}
    same = compare.compare(theirs, ours, sender=origin, here=ORIGIN)
    assert (same["identical"], same["reason"]) == (True, "")
    ours.write_text("a\nB\nd\n")
    with pytest.raises(IntegrityError, match="2 lines of the table that was sent are not what the raw runs"):
        compare.compare(theirs, ours, sender=origin, here=ORIGIN)
    told = compare.compare(theirs, ours, sender={**origin, "code": "0" * 64}, here=ORIGIN)
    assert (told["identical"], told["lines_that_differ"]) == (False, 2)
    assert "commit cccc" in told["reason"]
    other = {**origin, "packages": {**origin["packages"], "numpy": "1.0"}}
    assert (
        "numpy is 2.0.0 here and was 1.0"
        in compare.compare(theirs, ours, sender=other, here=ORIGIN)["reason"]
    )
