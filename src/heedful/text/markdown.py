"""Blocks of code in a text as Markdown has them: they are no prose."""

import re
from collections.abc import Iterator

# Of a block of code, also of one within a quotation or an item of a list, in which it may begin.
FENCE = re.compile(
    r"^(?P<before>[ \t>]*(?P<item>(?:(?:[-*+]|\d{1,9}[.)])[ \t][ \t>]*)*))"
    r"(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})(?P<told>.*)$",
    re.MULTILINE,
)


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Cut a text at Markdown's blocks of code, from ``` to ```; yield each piece and whether it is prose."""
    end = 0
    opening = None
    for fence in FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif _closes(fence, opening):
            yield text[end : opening.start()], True
            yield text[opening.start() : fence.end()], False
            end, opening = fence.end(), None
    yield text[end:], True


def _closes(fence: re.Match[str], opening: re.Match[str]) -> bool:
    """Return whether a fence ends the block that another one opened: in the same quotation, and not further in."""
    ours, theirs = fence["before"], opening["before"]
    inside = ours.count(">") == theirs.count(">") and len(ours.expandtabs(4)) <= len(theirs.expandtabs(4)) + 3
    return fence["mark"].startswith(opening["mark"]) and inside and not fence["item"] and not fence["told"].strip()
