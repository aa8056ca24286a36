"""Fixtures for all tests."""

import signal

from tests.browser import browser

__all__ = ["browser"]

# A shell ignores these for what it puts in the background, and every process started here would inherit that.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
