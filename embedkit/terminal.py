"""Text for a terminal: control characters as visible escapes, and words of a command that is copied from there.

A text of a data set, a log or a file name may have escape sequences, bidirectional controls and characters that nobody
sees. A terminal would obey them: change what is above, hide text, or show it in a different order.
"""

import re
import shlex
import unicodedata
from collections.abc import Iterable

_SHORT = {"\r": "\\r", "\a": "\\a", "\b": "\\b", "\v": "\\v", "\f": "\\f"}
_EMOJI = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_JOINING = "\u0620-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af"
"""Scripts whose words need joiners, from Arabic to Mongolian."""
_KEPT = re.compile(
    "[\n\t]"
    # Format characters that are drawn: signs around numbers in Arabic and Syriac, hieroglyphs.
    "|[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]"
    # Emoji: how one is drawn, keys, and joiners.
    f"|(?<=[{_EMOJI}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    f"|(?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d(?=[{_EMOJI}])"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])"
    # Variants: of letters in Mongolian, and of letters, signs and ideographs that Unicode lists.
    "|(?<=[\u1820-\u18aa])[\u180b-\u180d\u180f]"
    "|(?<=[\u1000-\u109f\u2190-\u2bff\u3001-\u303f\u3400-\u9fff\uff01-\uff5e])[\ufe00-\ufe02]"
    # Flags of regions: a country and a part of it.
    "|(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
)
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Default_Ignorable_Code_Point of Unicode: what a terminal draws as nothing, letters and marks among them."""
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, format characters, lone surrogates, line and paragraph separators."""


def visible(text: str) -> str:
    """Return a text with every character that a terminal obeys or hides as an escape, such as `\\x1b` or `\\u202e`.

    Line breaks, tabs, letters of all scripts and emoji stay.
    """
    if text.isascii() and text.isprintable():
        return text
    parts, end = [], 0
    for kept in _KEPT.finditer(text):
        parts += [_escaped(text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    if text.isprintable() and not _IGNORABLE.search(text):
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _HIDDEN or _IGNORABLE.match(char) else char for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        code -= 0xDC00
    if code <= 0xFF:
        return _SHORT.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def quote(word: str) -> str:
    """Return a word as it is typed into bash, zsh or ksh: $'...' if it has characters that `visible` would escape."""
    if visible(word) == word and "\n" not in word and "\t" not in word:
        return shlex.quote(word)
    return "$'" + "".join(map(_typed, word)) + "'"


def _typed(char: str) -> str:
    if char not in "\\'" and char.isprintable() and not _IGNORABLE.match(char):
        return char
    errors = "surrogateescape" if 0xDC80 <= ord(char) <= 0xDCFF else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", errors))


def command_line(words: Iterable[str]) -> str:
    """Return a command as it is typed into a shell."""
    return " ".join(map(quote, words))


_PIECE = re.compile(r"(?P<space> +)|\$'(?P<bytes>[^']*)'|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<plain>.)", re.S)


def words_of(line: str) -> list[str]:
    """Return the words of a line that `command_line` made."""
    words: list[str] = []
    begins = True
    for piece in _PIECE.finditer(line):
        if piece["space"]:
            begins = True
            continue
        text = piece[0] if piece["plain"] else _untyped(piece["bytes"]) or piece["single"] or piece["double"] or ""
        if begins:
            words.append("")
        words[-1] += text
        begins = False
    return words


def _untyped(text: str | None) -> str:
    """Undo `_typed`."""
    typed = (text or "").encode("utf-8", "surrogateescape")
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), typed)
    return raw.decode("utf-8", "surrogateescape")
