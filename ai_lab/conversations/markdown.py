"""A message as a part of a Markdown file: it looks as its author meant and cannot break out of its place.

A message may hold anything: headings, HTML, a code fence that is never closed. So headings sink below those of the
file, HTML is shown instead of meant, and every fence starts at the margin and ends within the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ai_lab.conversations.schemas import Conversation, Message

_LINE_END = re.compile(r"\r\n|\r|\n")
_FENCE = re.compile(r"([ \t]*)(?:(`{3,})([^`]*)|(~{3,})(.*))$", re.DOTALL)
_HEADING = re.compile(r"( {0,3})(#{1,6})(?=[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_BACKTICKS = re.compile(r"`+")
_OWN_LEVELS = 2


def heading_of(conversation: Conversation) -> str:
    """Return the head of the file."""
    title = one_line(conversation.title or "Conversation")
    started = conversation.created_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"# {title}\n\nSession {_code(conversation.session_id)}, started {started}\n"


def section_of(message: Message) -> str:
    """Return a message with its heading: who, when, by which model, and how it ended unless well."""
    parts = [message.role.capitalize(), message.created_at.strftime("%Y-%m-%d %H:%M:%S UTC")]
    if message.model:
        parts.append(one_line(f"{message.provider}/{message.model}" if message.provider else message.model))
    if message.status != "complete":
        parts.append(message.status)
    blocks = [f"\n## {' · '.join(parts)}\n"]
    if message.thought_process:
        thoughts = contained(message.thought_process)
        blocks.append(f"<details><summary>Thought process</summary>\n\n{thoughts}\n\n</details>\n")
    blocks.append(f"{contained(message.content)}\n")
    return "\n".join(blocks)


def one_line(text: str) -> str:
    """Return text for the inside of a line."""
    return _TAG.sub("&lt;", " ".join(text.split()))


def contained(text: str) -> str:
    """Return the text of a message so that nothing in it reaches beyond it."""
    return "\n".join(_contained(_LINE_END.split(text)))


def _contained(lines: list[str]) -> Iterator[str]:
    fence, indent = "", ""
    in_paragraph = spans_are_whole = False
    for line in lines:
        if fence:
            inner = _dedented(line, indent)
            if re.fullmatch(f" {{0,3}}{fence[0]}{{{len(fence)},}}[ \t]*", inner):
                inner, fence = fence, ""
            yield inner
            continue
        opening = _FENCE.match(line)
        if opening:
            indent, fence = opening[1], opening[2] or opening[4]
            yield fence + (opening[3] or opening[5] or "").rstrip()
            in_paragraph = False
            continue
        if in_paragraph and _UNDERLINE.match(line):
            yield ""  # else it would make a heading of the line above
        spans_are_whole = "\\" not in line and "|" not in line and (spans_are_whole or not in_paragraph)
        in_paragraph = bool(line.strip())
        shown, spans_are_whole = _without_tags(line, spans_are_whole)
        yield _HEADING.sub(_sunk, shown, count=1) if _HEADING.match(shown) else shown
    if fence:
        yield fence


def _dedented(line: str, indent: str) -> str:
    """Return a line of a fence that stood ``indent`` deep (in a list, mostly) as it is at the margin."""
    width = 0
    while width < len(indent) and line[width : width + 1] in {" ", "\t"}:
        width += 1
    return line[width:]


def _sunk(match: re.Match[str]) -> str:
    return match[1] + match[2] + "#" * min(_OWN_LEVELS, 6 - len(match[2]))


def _without_tags(line: str, has_whole_spans: bool) -> tuple[str, bool]:
    """Return the line with its tags shown, and whether every code span that starts in it ends in it.

    What stands in a code span is left alone, but only where it is certain that it stands in one.
    """
    shown, position = [], 0
    while has_whole_spans and (opening := _BACKTICKS.search(line, position)):
        runs = _BACKTICKS.finditer(line, opening.end())
        closing = next((run for run in runs if len(run[0]) == len(opening[0])), None)
        if closing is None:
            has_whole_spans = False
            break
        shown += [_TAG.sub("&lt;", line[position : opening.start()]), line[opening.start() : closing.end()]]
        position = closing.end()
    return "".join([*shown, _TAG.sub("&lt;", line[position:])]), has_whole_spans


def _code(text: str) -> str:
    """Return text as a code span, whatever signs it holds."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    ticks = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{ticks}{space}{text}{space}{ticks}"
