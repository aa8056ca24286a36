"""Fixtures for all tests."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adb_server import FakeServer
from tests.browser import browser

__all__ = ["browser"]

# Tests start Python hundreds of times; where compiled modules must not be kept, each start compiles them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell ignores these for what it puts in the background, and every process started here would inherit that.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/chaos; only the first conftest may have any."""
    group = parser.getgroup("chaos", "faults")
    group.addoption("--all-points", action="store_true", help="inject each fault at all of its points")
    group.addoption("--chaos-report", metavar="FILE", help="write the table of the faults there (Markdown)")


_TESTS = Path(__file__).parent
# What starts workflows and phones measures on this machine's cores: one at a time, whatever runs beside it.
_MEASURING = ("chaos", "workflow")
# These judge speeds, so they come when the others are through.
_QUIET = ("test_demo.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what may run beside what (`pytest -n 2`): all tests that measure, and each file of the others."""
    for item in items:
        place = item.path.relative_to(_TESTS).parts
        item.add_marker(pytest.mark.xdist_group("measuring" if place[0] in _MEASURING else "/".join(place)))
    items.sort(key=lambda item: item.path.name in _QUIET)


@pytest.fixture
def adb_server() -> Iterator[Callable[..., FakeServer]]:
    """Return what starts scripted adb servers, and end them all."""
    servers: list[FakeServer] = []

    def start(*arguments: object, **named: object) -> FakeServer:
        servers.append(FakeServer(*arguments, **named))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()
