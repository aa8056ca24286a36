"""What uiautomator dumps: read, searched, and refused where it is no screen; what can be typed."""

from __future__ import annotations

import pytest

from pocketvlm.apps import keys, screen
from pocketvlm.apps.screen import Bounds, ScreenError, Selector
from pocketvlm.errors import ConfigError
from tests.apps.recorded import HERE, PACKAGE

SCREENS = HERE / "pocketchat/screens"


def shown(name: str) -> screen.Screen:
    return screen.parse((SCREENS / f"{name}.xml").read_bytes())


def test_every_recorded_screen_is_one():
    for path in SCREENS.glob("*.xml"):
        assert screen.parse(path.read_bytes()).nodes, path.name


def test_views_are_found_by_id_text_and_description():
    answered = shown("answered")
    (answer,) = Selector(id="answer").find(answered, PACKAGE)
    assert answer.id == f"{PACKAGE}:id/answer"
    assert answer.text.startswith(
        'A cup of coffee on a wooden table. <b>I am sure</b> & calm &amp; it is "hot"'
    )
    assert Selector(id=f"{PACKAGE}:id/answer").find(answered, "other.app") == [answer]
    assert Selector(id="answer").find(answered, "other.app") == []
    assert Selector(contains="wooden").find(answered, PACKAGE) == [answer]
    assert Selector(text="wooden").find(answered, PACKAGE) == []
    (stats,) = Selector(matches=r"prefill: .* s").find(answered, PACKAGE)
    assert stats.text.count("\n") == 1, "a line feed comes as a reference"
    (attach,) = Selector(description="Attach a picture").find(answered, PACKAGE)
    assert attach.bounds == Bounds(0, 2250, 150, 2400)
    assert attach.bounds.centre == (75, 2325)
    assert Selector(id="answer", text="something else").find(answered, PACKAGE) == []
    assert not Selector(id="send").find(answered, PACKAGE)[0].enabled


def test_a_view_without_extent_is_not_on_the_screen():
    text = (SCREENS / "home.xml").read_text().replace("[720,250][1040,350]", "[720,350][1040,350]")
    assert Selector(id="load").find(screen.parse(text.encode()), PACKAGE) == []


def test_what_androids_own_dialogs_say_is_told():
    assert screen.in_the_way(shown("home"), PACKAGE) is None
    what, do = screen.in_the_way(shown("asking"), PACKAGE)
    assert "asks for a permission: Allow Pocket Chat to access photos?" in what
    assert "permissions" in do
    what, _ = screen.in_the_way(shown("hanging"), PACKAGE)
    assert "does not respond: Pocket Chat isn't responding" in what
    crashed = (SCREENS / "hanging.xml").read_text().replace("aerr_wait", "aerr_restart")
    what, _ = screen.in_the_way(screen.parse(crashed.encode()), PACKAGE)
    assert "has crashed" in what


NODE = '<node bounds="[0,0][1,1]" />'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no XML"),
        (b"UI hierchary dumped to: x", "no XML"),
        (b"<hierarchy><node></hierarchy>", "bounds"),
        (b'<hierarchy><node bounds="[0,0]" /></hierarchy>', "bounds"),
        (b"<html></html>", "<html> cannot stand here"),
        (f"<hierarchy>{NODE}<hierarchy /></hierarchy>".encode(), "<hierarchy> cannot stand here"),
        (b'<!DOCTYPE h [<!ENTITY a "b">]><hierarchy rotation="0"></hierarchy>', "document type"),
        (b'<!DOCTYPE h SYSTEM "file:///etc/passwd"><hierarchy />', "document type"),
        (b"<hierarchy>" + b'<node bounds="[0,0][1,1]">' * 400, "400|nested"),
        (f"<hierarchy>{NODE * 20_001}</hierarchy>".encode(), "more than"),
        (b" " * (screen.MAX_BYTES + 1), "KiB"),
        (b'<hierarchy><node bounds="[0,0][1,1]" text="&nope;" /></hierarchy>', "no XML"),
    ],
)  # fmt: skip
def test_what_is_no_screen_is_refused(data, why):
    with pytest.raises(ScreenError, match=why):
        screen.parse(data)


def test_a_character_in_two_halves_is_one():
    data = b'<hierarchy><node bounds="[0,0][1,1]" text="a &#55357;&#56832; b" /></hierarchy>'
    assert screen.parse(data).nodes[0].text == "a \N{GRINNING FACE} b"


def typed(pieces: list[str]) -> str:
    """What sendText of InputShellCommand makes of the arguments."""
    found = ""
    for piece in pieces:
        rest = list(piece)
        while rest:
            first = rest.pop(0)
            if first == "%" and rest[:1] == ["s"]:
                rest.pop(0)
                first = " "
            found += first
    return found


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "two words",
        "100%sure, 5 %s or %%s?",
        "%",
        "%s",
        " %s% s",
        'it\'s "$HOME" `id`; x=1\\ & | > <',
        "x" * 1500,
    ],
)
def test_what_is_typed_is_what_was_meant(text):
    pieces = keys.pieces(text, where="w")
    assert typed(pieces) == text
    assert all(len(piece) <= 2 * keys.MAX_PIECE for piece in pieces)


@pytest.mark.parametrize("text", ["", "two\nlines", "tab\t", "é", "\N{GRINNING FACE}", "\x7f"])
def test_what_cannot_be_typed_is_refused(text):
    with pytest.raises(ConfigError, match=r"typed|nothing to type"):
        keys.pieces(text, where="w")
