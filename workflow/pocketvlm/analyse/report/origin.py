"""Where a report comes from: pocketvlm's commit, whether its tree was dirty, and the versions at work."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "pocketvlm",
    "snakemake",
    "adbutils",
    "gguf",
    "numpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "seaborn",
    "jinja2",
)


@dataclass(frozen=True)
class Origin:
    """What made a report.

    Attributes:
        commit: hex id of the clone's HEAD; None where there is no clone.
        changed: files that differ from the commit; None where there is no clone.
        reason: why commit and changed are unknown; empty when they are known.
        python: version of the interpreter.
        machine: system and architecture that drew the report, which need not be the one that measured.
        packages: version by distribution name; None for one that is not installed.
        drawn: UTC time, ISO 8601; SOURCE_DATE_EPOCH if that is set.
    """

    commit: str | None
    changed: tuple[str, ...] | None
    reason: str
    python: str
    machine: str
    packages: dict[str, str | None]
    drawn: str


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_origin(repository: Path) -> Origin:
    """Read what a report must say about its making from the clone and the interpreter that runs.

    Args:
        repository: the clone of pocketvlm that the workflow runs from.
    """
    commit: str | None = None
    changed: tuple[str, ...] | None = None
    reason = ""
    try:
        commit = _git(repository, "rev-parse", "HEAD").strip()
        changed = tuple(line[3:] for line in _git(repository, "status", "--porcelain").splitlines())
    except FileNotFoundError:
        reason = "git is not installed here"
    except subprocess.TimeoutExpired:
        reason = "git did not answer within a minute"
    except subprocess.CalledProcessError as error:
        reason = f"git says: {error.stderr.strip().splitlines()[0] if error.stderr.strip() else error}"
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    drawn = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return Origin(
        commit=commit,
        changed=changed,
        reason=reason,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        packages={package: _version(package) for package in PACKAGES},
        drawn=drawn.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
