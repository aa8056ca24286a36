"""Working copies of the project in which the real DAG is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import Project, checkout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh working copy: nothing has run in it."""
    return checkout(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A working copy in which the micro experiment has run to its report. Copy it before changing it."""
    project = checkout(tmp_path_factory.mktemp("finished"))
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-4000:]
    return project


@pytest.fixture
def rerun(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, to be changed."""
    return finished.copy(tmp_path)
