"""What `input text` can type, and how it has to be written for it.

Source: frameworks/base, services/core, InputShellCommand.java (before Android 12 cmds/input, Input.java),
sendText: `%s` is a space, a percent sign that no `s` follows is itself, and a text with a character that the
virtual keyboard does not have (KeyCharacterMap.getEvents gives null) is not typed at all.
"""

from __future__ import annotations

from pocketvlm.errors import ConfigError

MAX_PIECE = 400
"""Characters typed by one command: each is a pair of key events, and the command has a deadline."""


def pieces(text: str, *, where: str) -> list[str]:
    """Return the arguments of the `input text` commands that type a text one after the other.

    Raises:
        ConfigError: the text has a character that this way of typing does not have, or is empty.
    """
    for place, character in enumerate(text):
        if not (" " <= character <= "~"):
            raise ConfigError(
                f"{character!r} at character {place} of the text cannot be typed by `input text`",
                where=where,
                do="Use printable ASCII in one line, such as a workload with a plain prompt",
            )
    if not text:
        raise ConfigError("there is nothing to type", where=where, do="Give a text")
    found = [""]
    for before, character in zip(["", *text[:-1]], text, strict=True):
        # A percent sign and an s in one argument would be a space.
        if len(found[-1]) >= MAX_PIECE or (before == "%" and character == "s"):
            found.append("")
        found[-1] += "%s" if character == " " else character
    return found
