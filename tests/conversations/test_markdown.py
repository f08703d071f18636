"""A parser that was written by others decides whether a message stays in its place."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ai_lab.conversations.markdown import heading_of, section_of
from ai_lab.conversations.schemas import Conversation, Message

_PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_OWN_TAGS = ["<details><summary>Thought process</summary>", "</details>"]
# Pieces of which Markdown that breaks out of its place is made.
_PIECES = st.sampled_from(
    [
        *[
            "```",
            "~~~",
            "````",
            "`",
            "``",
            "\\",
            "|",
            "\n",
            "\n\n",
            " ",
            "    ",
            "\t",
            "- ",
            "1. ",
            "> ",
            "# ",
            "## ",
            "---",
        ],
        *["===", "<script>", "</details>", "<!--", "<b>", "<?", "a", "word", "\r", "\r\n", "[x]: /y", "&lt;", "*", "-"],
    ]
)
_TEXTS = st.lists(_PIECES, max_size=25).map("".join) | st.text(st.characters(exclude_categories=["Cs"]))


def _message(content: str, thought_process: str | None = None) -> Message:
    return Message(
        message_id="m",
        session_id="s",
        sequence=1,
        role="assistant",
        content=content,
        thought_process=thought_process,
        created_at=_MOMENT,
    )


def _conversation(title: str | None, session_id: str = "s") -> Conversation:
    return Conversation(session_id=session_id, title=title, message_count=2, created_at=_MOMENT, updated_at=_MOMENT)


def _file(title: str | None, *messages: Message) -> str:
    return heading_of(_conversation(title)) + "".join(section_of(message) for message in messages)


@example(title="<b>\n# b", first="a\n---", thoughts="a\n===\n</details>", second="```\n<b>")
@example(title="`", first="`\n` <b> `", thoughts="\\` <b> `", second="| ` | <b> ` |\n|---|---|\n| ` | <b> ` |")
@example(title="", first="- ```\n  <b>\n```\n<b>", thoughts="1. a\n   ~~~\n<b>", second="> ```\n<b>")
@given(title=_TEXTS, first=_TEXTS, thoughts=_TEXTS, second=_TEXTS)
def test_no_message_reaches_beyond_its_place(title: str, first: str, thoughts: str, second: str) -> None:
    tokens = _PARSER.parse(_file(title, _message(first, thoughts), _message(second)))
    headings = [(token.tag, token.level) for token in tokens if token.type == "heading_open" and token.tag < "h3"]
    top = [tag for tag, level in headings if level == 0]
    assert top == ["h1", "h2", "h2"]
    html = [token.content.strip() for token in tokens if token.type == "html_block"]
    html += [child.content for token in tokens for child in token.children or () if child.type == "html_inline"]
    assert html == (_OWN_TAGS if thoughts else [])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(lambda line: f"> {line}"), max_size=5))
def test_code_in_a_fence_stays_as_it_is(lines: list[str]) -> None:
    code = "\n".join(["```python", *lines, "```"])
    assert f"\n{code}\n" in section_of(_message(f"See:\n\n{code}\n\nand so on"))


def test_code_in_a_list_moves_to_the_margin_and_stays_code() -> None:
    shown = section_of(_message("1. Say\n   ```c\n   #include <stdio.h>\n     x\n   ```\n2. Done <b>"))
    assert "```c\n#include <stdio.h>\n  x\n```\n2. Done &lt;b>" in shown


def test_tags_are_shown_and_code_spans_left_alone() -> None:
    assert "a &lt;b>bold&lt;/b> `<b>` 1 < 2\n" in section_of(_message("a <b>bold</b> `<b>` 1 < 2"))


def test_a_section_says_who_when_and_how_it_ended() -> None:
    message = _message("Hi").model_copy(update={"provider": "echo", "model": "echo", "status": "interrupted"})
    assert section_of(message) == "\n## Assistant · 2026-01-02 03:04:05 UTC · echo/echo · interrupted\n\nHi\n"


def test_any_session_id_can_be_shown() -> None:
    shown = heading_of(_conversation(None, "a`` <b> ` c"))
    inline = next(token for token in _PARSER.parse(shown) if token.type == "inline" and "Session" in token.content)
    assert [child.content for child in inline.children or () if child.type == "code_inline"] == ["a`` <b> ` c"]
