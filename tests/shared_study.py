"""A small experiment of hand-made runs that belong together, to be packed and to be spoilt."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pocketvlm.analyse.report.origin import Origin
from pocketvlm.config import study
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import sha256_file, sha256_json, write_json
from pocketvlm.share import configured
from pocketvlm.share.archive import Manifest
from pocketvlm.share.pack import pack
from tests.experiments import cell_text, experiment_text

PROJECT = Path(__file__).parents[1]
EXPERIMENT = experiment_text("hand-made", cell_text(quantisation="[Q4_0, Q8_0]"))
ORIGIN = Origin("c" * 40, ("a",), "", "3.11.2", "Linux x86_64", {"numpy": "2.0.0", "adbutils": None}, "")


@dataclass
class Sent:
    """The sender's side: where their results are, what they resolve to, and the archive.

    Attributes:
        config: the configuration that both sides have, with absolute catalogues.
    """

    root: Path
    study: study.Study
    config: dict[str, Any]
    archive: Path

    def pack(self) -> Manifest:
        """Pack what is there now."""
        cells = self.study.cells
        bundles = {probe(cells[0]), *(cell.bundle for cell in cells)}
        return pack(
            root=self.root,
            experiment="handmade",
            config=configured.written(self.study),
            images=configured.images(self.study),
            identities=[self.root / "devices/local/identity.json"],
            bundles=[self.root / "bundles" / name for name in bundles],
            weights=sorted(self.root.glob("weights/*/*.json")),
            table=self.root / "handmade/tables/cells.csv",
            origin=ORIGIN,
            destination=self.archive,
        )

    @property
    def index(self) -> Path:
        """The index of the only block."""
        return self.root / "handmade/blocks/local.json"


def probe(cell: study.Cell) -> str:
    """Return the name of the probe's bundle."""
    return f"probe-{cell.target}"


def make(folder: Path) -> Sent:
    """Write the sender's results below a folder, and pack nothing yet."""
    shutil.copytree(PROJECT / "config", folder / "config")
    (folder / "config/experiments/handmade.yaml").write_text(EXPERIMENT)
    config = yaml.safe_load((folder / "config/config.yaml").read_text())
    config["experiment"] = "handmade"
    config["catalogues"] = {name: str(folder / path) for name, path in config["catalogues"].items()}
    resolved = study.load(config)
    root = folder / "sender"
    identity = {
        "format": 1,
        "id": "local",
        "kind": "local",
        "target": resolved.cells[0].target,
        "sensors": [],
    }
    write_json(root / "devices/local/identity.json", identity)
    for cell in resolved.cells:
        write_json(root / "bundles" / cell.bundle / "manifest.json", {"name": cell.bundle})
        for part in (f"model-{cell.quantisation}", "mmproj-f16"):
            record = {"format": 1, "sha256": sha256_json(part), "bytes": 1, "parameters": 1, "tensors": []}
            write_json(root / "weights" / cell.model / f"{part}.json", record)
    write_json(root / "bundles" / probe(resolved.cells[0]) / "manifest.json", {"name": "probe"})
    write_json(root / "handmade/cells.json", resolved.records())
    (root / "handmade/tables").mkdir()
    (root / "handmade/tables/cells.csv").write_text("experiment,cell\nhandmade,x\n")
    sent = Sent(root, resolved, config, folder / "sent.pocketvlm.tar.gz")
    write_index(sent, add_runs(sent, identity))
    return sent


def add_runs(sent: Sent, identity: Mapping[str, Any]) -> list[tuple[str | None, StoredRun]]:
    """Add an idle run and two measured ones of each cell to the store."""
    common = {
        "device": {"id": "local", "identity_sha256": sha256_json(dict(identity))},
        "probe": sha256_file(sent.root / "bundles" / probe(sent.study.cells[0]) / "manifest.json"),
    }
    at_rest = {"role": "idle", "round": 0, "position": 0}
    idle = add_run(sent.root, {**common, "workload": {"id": "idle"}}, at_rest)
    runs: list[tuple[str | None, StoredRun]] = [(None, idle)]
    for cell in sent.study.cells:
        inputs = {
            **common,
            "bundle": sha256_file(sent.root / "bundles" / cell.bundle / "manifest.json"),
            "weights": {
                "model": sha256_json(f"model-{cell.quantisation}"),
                "mmproj": sha256_json("mmproj-f16"),
            },
            "workload": {
                "id": cell.workload,
                "image_sha256": sha256_file(sent.study.workloads[cell.workload]["image_path"]),
            },
        }
        for number in (1, 2):
            meta = {"role": "measured", "round": number, "position": len(runs), "idle": idle.name}
            runs.append((cell.id, add_run(sent.root, inputs, meta)))
    return runs


def add_run(root: Path, inputs: Mapping[str, Any], meta: Mapping[str, Any]) -> StoredRun:
    """Add one run with two small files."""
    store = RawStore(root / "raw")
    with store.draft() as draft:
        (draft / "stdout").write_text(f"answer {meta['position']}\n" * 50)
        (draft / "cpu.csv").write_text("t_us,cpu\n0,1\n")
        return store.add(draft, inputs, {"block": "b", "idle": None, **meta})


def write_index(sent: Sent, runs: list[tuple[str | None, StoredRun]]) -> None:
    """Write the index of the block."""
    listed = [
        {
            "run": run.name,
            "cell": cell,
            **{name: run.meta[name] for name in ("role", "block", "round", "position")},
            "meta_sha256": sha256_file(run.folder / "meta.json"),
        }
        for cell, run in runs
    ]
    index = {"format": 1, "experiment": "handmade", "device": "local", "runs": listed, "unmeasured": {}}
    write_json(sent.index, index)


def members(archive: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return the members of an archive."""
    with tarfile.open(archive) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def write_members(
    archive: Path, listed: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT
) -> None:
    """Write an archive of any members, whatever they are."""
    data = b""
    for member, content in listed:
        if member.type == tarfile.REGTYPE and member.size != len(content) and not member.pax_headers:
            member.size = len(content)
        data += member.tobuf(form) + content + bytes(-len(content) % 512)
    archive.write_bytes(gzip.compress(data + bytes(1024), mtime=0))
