"""How pip is configured here: which index, which mirrors, which certificates.

The workflow names no index of its own: whatever `pip install` would ask, it asks. Options: pip's user guide,
"Configuration".
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pocketvlm.errors import ProvisionError


@dataclass(frozen=True)
class PipConfig:
    """The part of pip's configuration that says where packages come from.

    Attributes:
        index_url: the main index, None for pip's own default.
        extra_index_urls, find_links: further places.
        no_index: whether only `find_links` may be asked.
        trusted_hosts: hosts whose certificate is not checked.
        cert: file of certificates to trust, None for the system's.
        client_cert: the client's own certificate.
        proxy: proxy to go through, None for the environment's.
        timeout_s: seconds to wait for an answer.
        retries: further attempts after one that failed in passing.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout_s: float = 15.0
    retries: int = 5


def read() -> PipConfig:
    """Ask pip for its effective configuration: files and environment, the later over the earlier."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if asked.returncode != 0:
        raise ProvisionError(
            f"pip cannot tell its configuration: {asked.stderr.strip()[-300:]}",
            where="python -m pip config list",
            do="Correct pip's configuration, then start again",
        )
    return parse(asked.stdout)


def parse(listing: str) -> PipConfig:
    """Read what `pip config list` prints: lines such as `global.index-url='…'` and `:env:.index-url='…'`."""
    found: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, dot, option = name.rpartition(".")
        if separator and dot:
            try:
                found.setdefault(section, {})[option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                found.setdefault(section, {})[option] = value
    # pip's precedence: the environment, then the command's section, then the global one.
    merged: dict[str, str] = {}
    for section in ("global", "download", ":env:"):
        merged.update(found.get(section, {}))
    return PipConfig(
        index_url=merged.get("index-url"),
        extra_index_urls=_words(merged, "extra-index-url"),
        find_links=_words(merged, "find-links"),
        no_index=merged.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        trusted_hosts=_words(merged, "trusted-host"),
        cert=merged.get("cert"),
        client_cert=merged.get("client-cert"),
        proxy=merged.get("proxy"),
        timeout_s=_number(merged, ("timeout", "default-timeout"), PipConfig.timeout_s),
        retries=int(_number(merged, ("retries",), PipConfig.retries)),
    )


def _words(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(options.get(name, "").split())


def _number(options: Mapping[str, str], names: tuple[str, ...], default: float) -> float:
    for name in names:
        if name in options:
            try:
                return float(options[name])
            except ValueError:
                raise ProvisionError(
                    f"pip's {name} is {options[name]!r}, which is no number",
                    where="python -m pip config list",
                    do="Correct pip's configuration, then start again",
                ) from None
    return default
