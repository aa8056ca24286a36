"""Fixtures for all tests."""

import os
import signal
from collections.abc import Callable, Iterator

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
