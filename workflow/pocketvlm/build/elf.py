"""Which shared libraries a program or library asks for, read from its ELF file.

A driver that is taken along needs the libraries that it names, and those they name. Layout: elf(5); 64-bit
little-endian files only, which all targets here are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from pocketvlm.errors import ProvisionError

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB, _SONAME = 1, 5, 14
_MAX_STRING = 4096


def needed(path: Path) -> list[str]:
    """Return the names of the libraries that a file asks for, in its order; none for a static one.

    Raises:
        ProvisionError: it is no ELF file of this kind, or a damaged one.
    """
    return _dynamic(path)[0]


def soname(path: Path) -> str | None:
    """Return the name by which others ask for a library; None where it has none. Errors as `needed`."""
    return _dynamic(path)[1]


def closure(
    name: str, folders: Sequence[Path], *, without: Iterable[str] = ()
) -> tuple[dict[str, Path], list[str]]:
    """Return a library with all that it asks for, and the names that are in none of the folders.

    Args:
        name: the library's file name.
        folders: where to look, the first first; links count as what they lead to.
        without: names that are left out, with what only they ask for: those of the system itself.

    Returns:
        the files by the name under which they are asked for, and what was not found.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    left_out, waiting = set(without), [name]
    while waiting:
        wanted = waiting.pop(0)
        if wanted in found or wanted in missing or wanted in left_out:
            continue
        path = next((folder / wanted for folder in folders if (folder / wanted).is_file()), None)
        if path is None:
            missing.append(wanted)
            continue
        found[wanted] = path
        waiting += needed(path)
    return found, missing


def _dynamic(path: Path) -> tuple[list[str], str | None]:
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise _broken(path, "it is no 64-bit little-endian ELF file")
    try:
        offset, size, count = (
            *struct.unpack_from("<Q", data, 32),
            *struct.unpack_from("<HH", data, 54),
        )
        segments = [struct.unpack_from("<IIQQQQQQ", data, offset + size * n) for n in range(count)]
        loads = [
            (virtual, place, length) for kind, _, place, virtual, _, length, *_ in segments if kind == _LOAD
        ]
        names: list[int] = []
        table = own = None
        for kind, _, place, _, _, length, *_ in segments:
            for at in range(place, place + length, 16) if kind == _DYNAMIC else ():
                tag, value = struct.unpack_from("<qQ", data, at)
                if tag == 0:
                    break
                if tag == _NEEDED:
                    names.append(value)
                elif tag == _SONAME:
                    own = value
                elif tag == _STRTAB:
                    table = value
        if not names and own is None:
            return [], None
        if table is None:
            raise _broken(path, "it names libraries and has no table of names")
        start = next(
            place + table - virtual for virtual, place, length in loads if virtual <= table < virtual + length
        )
        return [_text(data, start + name) for name in names], None if own is None else _text(
            data, start + own
        )
    except (struct.error, StopIteration, ValueError) as error:
        raise _broken(path, str(error) or "a part of it lies outside of it") from None


def _text(data: bytes, at: int) -> str:
    end = data.index(b"\0", at, at + _MAX_STRING)
    return data[at:end].decode("ascii", errors="replace")


def _broken(path: Path, why: str) -> ProvisionError:
    return ProvisionError(
        f"{path.name} cannot be read as a program or library: {why}",
        where=str(path),
        do="Remove the folder that it is in, so that it is fetched again",
    )
