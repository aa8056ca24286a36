"""A screen as `uiautomator dump` writes it: a tree of views, read as text from outside.

Source: frameworks/base, cmds/uiautomator, AccessibilityNodeInfoDumper.java: `<hierarchy rotation="0">` and in
it nested `<node index text resource-id class package content-desc … bounds="[left,top][right,bottom]">`.
What an app shows is anything: size, depth and number are limited, and a document type, with which entities
come, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.parsers import expat

MAX_BYTES = 512 << 10
MAX_NODES = 20_000
MAX_DEPTH = 300
MAX_TEXT = 64_000
_BOUNDS = re.compile(r"\[(-?\d{1,6}),(-?\d{1,6})\]\[(-?\d{1,6}),(-?\d{1,6})\]")
# Some Androids write a character beyond the first plane as two references, of which neither is one in XML.
_SURROGATES = re.compile(rb"&#(5529[6-9]|55[3-9]\d\d|56[01]\d\d|562\d\d|563[01]\d);&#(5[67]\d{3});")


class ScreenError(ValueError):
    """A dump is no screen; the text says why."""


@dataclass(frozen=True)
class Bounds:
    """Where a view is, in pixels: [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def centre(self) -> tuple[int, int]:
        """The point that is tapped."""
        return (self.left + self.right) // 2, (self.top + self.bottom) // 2

    @property
    def empty(self) -> bool:
        """Whether nothing of it is on the screen."""
        return self.right <= self.left or self.bottom <= self.top


@dataclass(frozen=True)
class Node:
    """One view.

    Attributes:
        id: its resource id, `package:id/name`; empty for none.
        text, description: what it shows and what is read out for it.
        package, kind: whose it is, and its class.
        enabled: whether it can be used.
        bounds: where it is.
    """

    id: str
    text: str
    description: str
    package: str
    kind: str
    enabled: bool
    bounds: Bounds


@dataclass(frozen=True)
class Screen:
    """All views of a dump in its order: parents before children, what lies above after what is below it."""

    nodes: tuple[Node, ...]

    @property
    def packages(self) -> frozenset[str]:
        """Whose views are on the screen."""
        return frozenset(node.package for node in self.nodes if node.package)


@dataclass(frozen=True)
class Selector:
    """Which view is meant: what is given must hold, all of it.

    Attributes:
        id: resource id; without a colon, of the app's own package.
        text: the whole text; `contains`: a part of it; `matches`: a pattern that all of it matches.
        description: the whole content description.
    """

    id: str | None = None
    text: str | None = None
    contains: str | None = None
    matches: str | None = None
    description: str | None = None

    def __str__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        return " ".join(f"{name}={value!r}" for name, value in given.items())

    def find(self, screen: Screen, package: str) -> list[Node]:
        """Return the views that are meant, of those that are on the screen at all."""
        return [node for node in screen.nodes if not node.bounds.empty and self._holds(node, package)]

    def _holds(self, node: Node, package: str) -> bool:
        wanted = self.id if self.id is None or ":" in self.id else f"{package}:id/{self.id}"
        return (
            (wanted is None or node.id == wanted)
            and (self.text is None or node.text == self.text)
            and (self.contains is None or self.contains in node.text)
            and (self.matches is None or re.fullmatch(self.matches, node.text, re.DOTALL) is not None)
            and (self.description is None or node.description == self.description)
        )


def parse(data: bytes) -> Screen:
    """Return the screen of a dump.

    Raises:
        ScreenError: too large, no XML, with a document type, or not what uiautomator writes.
    """
    if len(data) > MAX_BYTES:
        raise ScreenError(f"the dump has more than the {MAX_BYTES >> 10} KiB that are read")
    nodes: list[Node] = []
    open_: list[str] = []

    def begin(name: str, attributes: Mapping[str, str]) -> None:
        if (name == "hierarchy") != (not open_) or name not in ("hierarchy", "node"):
            raise ScreenError(f"<{name[:40]}> cannot stand here in a dump of uiautomator")
        open_.append(name)
        if len(open_) > MAX_DEPTH:
            raise ScreenError(f"views are nested more than {MAX_DEPTH} deep")
        if name == "node":
            nodes.append(_node(attributes))
            if len(nodes) > MAX_NODES:
                raise ScreenError(f"there are more than {MAX_NODES} views")

    def refuse(*_: object) -> None:
        raise ScreenError("the dump has a document type, which uiautomator never writes")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: open_.pop()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(_SURROGATES.sub(_joined, data), True)
    except expat.ExpatError as error:
        raise ScreenError(f"the dump is no XML: {error}") from None
    return Screen(tuple(nodes))


def _joined(match: re.Match[bytes]) -> bytes:
    high, low = int(match[1]), int(match[2])
    if not 0xDC00 <= low <= 0xDFFF:
        return match[0]
    return b"&#%d;" % (0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)


def _node(attributes: Mapping[str, str]) -> Node:
    match = _BOUNDS.fullmatch(attributes.get("bounds", ""))
    if match is None:
        raise ScreenError(f"a view has no bounds but {attributes.get('bounds', '')[:60]!r}")
    left, top, right, bottom = map(int, match.groups())

    def text(name: str) -> str:
        return attributes.get(name, "")[:MAX_TEXT]

    return Node(
        id=text("resource-id"),
        text=text("text"),
        description=text("content-desc"),
        package=text("package"),
        kind=text("class"),
        enabled=attributes.get("enabled", "true") == "true",
        bounds=Bounds(left, top, right, bottom),
    )


# What Android itself puts in front of an app. Sources: AppErrorDialog.java and AppNotRespondingDialog.java of
# frameworks/base (ids `aerr_*`), PermissionController's grant dialog (`permission_allow_button` and others).
_ERROR_IDS = re.compile(r"android:id/aerr_\w+")
_PERMISSION_PACKAGE = re.compile(r"com\.(?:google\.)?android\.(?:permissioncontroller|packageinstaller)")


def in_the_way(screen: Screen, package: str) -> tuple[str, str] | None:
    """Return what of Android's stands in front of an app and what to do about it; None for nothing.

    Args:
        screen: what is shown.
        package: the app's.
    """
    shown = [node.text for node in screen.nodes if node.text and node.package != package]
    told = " / ".join(shown)[:300]
    ids = {node.id for node in screen.nodes if _ERROR_IDS.fullmatch(node.id)}
    if "android:id/aerr_wait" in ids:
        return f"Android says that the app does not respond: {told}", (
            "Look into its log; a model too large for the phone's memory is the usual cause"
        )
    if ids:
        return f"Android says that the app has crashed: {told}", "Look into its log (`adb logcat -b crash`)"
    if any(_PERMISSION_PACKAGE.fullmatch(node.package) for node in screen.nodes):
        return f"the app asks for a permission: {told}", (
            "Name it in `permissions` of the app's entry, which are given before, or answer in `prepare`"
        )
    return None


def texts(screen: Screen) -> Iterator[str]:
    """Give every text that is shown, for messages and for looking through."""
    return (node.text for node in screen.nodes if node.text and not node.bounds.empty)
