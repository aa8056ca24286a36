"""A headless Chromium for tests of pages: Debian's, unpacked in a private folder, driven by playwright."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pocketvlm.provision.apt import tree

# No sandbox: it needs privileges that a container lacks, and the only pages opened are the tests' own.
# The others keep Chromium from looking for its maker's servers at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
GLIBC = re.compile(r"(ld-linux.*|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|nsl|nss_\w+|thread_db))[.-].*")
"""Libraries of the C library: they must be the ones of the loader that starts Chromium, the system's."""


def _libraries(root: Path, folder: Path) -> Path:
    """Return a folder of links to all shared libraries of an unpacked tree but the C library's."""
    folder.mkdir()
    for base in (root / "usr" / "lib", root / "lib"):
        for path in sorted(base.glob("*-linux-gnu*/**/*.so*")):
            link = folder / path.name
            if not GLIBC.fullmatch(path.name) and not link.is_symlink():
                link.symlink_to(path)
    return folder


def _fonts(root: Path, folder: Path) -> Path:
    """Return a fontconfig file that knows the tree's fonts only, so that a page looks the same everywhere."""
    path = folder / "fonts.conf"
    path.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"<dir>{root / 'usr/share/fonts'}</dir><cachedir>{folder / 'font-cache'}</cachedir></fontconfig>"
    )
    return path


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Yield a running Chromium that works as any user and with nothing installed; it ends with the block.

    Args:
        folder: an empty folder for its home, libraries and caches.
    """
    root = tree(["chromium", "fonts-dejavu-core"])
    home = folder / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": str(_libraries(root, folder / "lib")),
        "FONTCONFIG_FILE": str(_fonts(root, folder)),
    }
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=root / "usr" / "lib" / "chromium" / "chromium", args=list(FLAGS), env=environment
        )
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium for the tests of a file: playwright keeps an event loop running in between."""
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@dataclass
class Seen:
    """What a page did: the addresses it asked for, its console messages and errors, the dialogs it opened."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1400, scheme: Literal["light", "dark"] = "light"
) -> Iterator[tuple[Page, Seen]]:
    """Yield a file opened as a page, and what it did since."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    seen = Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))

    def dismiss(dialog: object) -> None:
        seen.dialogs.append(dialog.message)  # type: ignore[attr-defined]
        dialog.dismiss()  # type: ignore[attr-defined]

    page.on("dialog", dismiss)
    page.goto(path.resolve().as_uri())
    try:
        yield page, seen
    finally:
        context.close()
