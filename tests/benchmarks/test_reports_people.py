"""Reports that people read: figures with the digits they support, the grade first, foreign text that stays text."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from ai_lab.benchmarks.plan import OpenLoop, Plan
from ai_lab.benchmarks.reports import render
from ai_lab.benchmarks.reports.figures import change_text, estimate_text, plain_value, shown
from ai_lab.benchmarks.reports.series import Reservoir
from ai_lab.benchmarks.schemas import Estimate, Run, SearchStep
from tests.benchmarks.example_run import example_records, example_run, example_samples

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg></title><b onclick='x'>",
    "[click](javascript:alert(1)) ![x](http://evil/x.png)",
    "| a | b |\n|---|---|\n# big\n[x]: http://evil",
    "http://evil.example www.evil.example <http://evil.example>",
    "&lt;i&gt; `code` *b* __c__ ~~d~~ $e$ \\",
    "- [ ] list",
)
_VOID = {"meta", "br"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def html(run: Run, per_cell: int = 30) -> str:
    return render(run, "html", records=example_records(per_cell), samples=example_samples()).content.decode()


def markdown(run: Run) -> str:
    return render(run, "markdown").content.decode()


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "expected"),
    [
        (12.3456, 12.2, 12.5, "ms", "12.35 [12.20, 12.50] ms"),
        (12.3456, 10.0, 14.0, "ms", "12.3 [10.0, 14.0] ms"),
        (1234.56, 1100, 1400, "ms", "1230 [1100, 1400] ms"),
        (12345.6, 12000, 12700, "ms", "12.35 [12.00, 12.70] s"),
        (83.3333, 82.9, 83.9, "tokens/s", "83.33 [82.90, 83.90] tok/s"),
        (0.95, 0.9, 0.99, "share", "95.0 [90.0, 99.0] %"),
        (0.0, 0.0, 0.0, "ms", "0.000 [0.000, 0.000] ms"),
        (5.0, 5.0, 5.0, "", "5.000 [5.000, 5.000]"),
        (123.456789, 123.4567889, 123.4567891, "ms", "123.457 [123.457, 123.457] ms"),
        (-0.2, -0.4, 0.04, "ms", "-0.20 [-0.40, 0.04] ms"),
    ],
)
def test_a_figure_has_the_digits_its_interval_supports(
    value: float, low: float, high: float, unit: str, expected: str
) -> None:
    assert plain(estimate_text(Estimate(value=value, low=low, high=high), unit)) == expected


def test_a_figure_without_interval_says_why_and_a_missing_one_is_a_dash() -> None:
    small = Estimate(value=31.23456, reason="n too small: 29")
    assert plain(estimate_text(small, "ms")) == "31.2 ms (n too small: 29)"
    assert plain(estimate_text(Estimate(value=31.23456), "ms")) == "31.2 ms (no interval)"
    assert estimate_text(Estimate(reason="unavailable"), "W") == "— (unavailable)"
    assert estimate_text(None) == "—"
    assert plain_value(None, "ms") == "—"
    assert plain(plain_value(0.00012345, "s")) == "0.000123 s"
    assert plain(change_text(1.042, 1.051, 1.06)) == "+5.10 [+4.20, +6.00] %"
    assert plain(change_text(None, 0.9, None)) == "-10.0 %"


def test_foreign_text_is_one_bounded_line_without_invisible_characters() -> None:
    assert shown("a\x00b\u202ec\nd  e\u200b") == "a\ufffdb\ufffdc d e\ufffd"
    assert len(shown("x" * 10_000)) == 200


@pytest.mark.parametrize("fmt", ["html", "markdown"])
def test_the_grade_comes_first_with_reasons_and_remedies_the_worst_first(fmt: str) -> None:
    said = html(example_run()).split("</h1>")[1] if fmt == "html" else markdown(example_run())
    order = [
        "SUSPECT",
        "Stop them and run again.",
        "1 of 30 answers was short.",
        "is slower than",
        "First token, median",
    ]
    places = [said.index(one) for one in order]
    assert places == sorted(places)
    assert "ai-lab bench rerun" in said
    assert "n too small" not in said.split("First token, median")[0]


def test_the_page_is_one_file_that_loads_and_runs_nothing() -> None:
    text = html(example_run())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "style"} & page.attributes
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_every_chart_is_sound_xml_with_title_description_and_table() -> None:
    text = html(example_run())
    drawings = [ET.fromstring(one) for one in re.findall(r"<svg (?!class=\"key\").*?</svg>", text, re.DOTALL)]  # noqa: S314 - ours
    titles = [one.findtext("title") or "" for one in drawings]
    for wanted in ("Comparisons", "Throughput against", "time to first token", "time to last token", "Token timeline"):
        assert any(wanted in title for title in titles), wanted
    assert any("Gaps" in title for title in titles)
    assert any("Load of the machine" in title for title in titles)
    for one in drawings:
        names = (one.get("aria-labelledby") or "").split()
        assert [one[0].get("id"), one[1].get("id")] == names
        assert (one[0].tag, one[1].tag) == ("title", "desc")
        assert len(one[1].text or "") > 10
    assert len(drawings) == text.count("<figure>") == text.count("<summary>As a table</summary>")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_names_stay_text_in_html(name: str) -> None:
    honest, page = Page(html(example_run())), Page(html(example_run((name, "plain"))))
    assert set(page.tags) == set(honest.tags)
    assert page.attributes == honest.attributes
    assert any(shown(name, 80) in text for text in page.texts)


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_names_stay_text_in_markdown(name: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def kinds(run: Run) -> Counter[str]:
        tokens = reader.parse(markdown(run))
        return Counter(one.type for token in tokens for one in (token, *(token.children or ())))

    assert not {"link_open", "image", "html_inline", "html_block"} & set(kinds(example_run()))
    honest, hostile = kinds(example_run()), kinds(example_run((name, "plain")))
    for inline in ("text", "text_special", "softbreak"):
        honest.pop(inline, None)
        hostile.pop(inline, None)
    assert hostile == honest
    said = "".join(
        child.content
        for token in reader.parse(markdown(example_run((name, "plain"))))
        for child in token.children or ()
    )
    assert shown(name, 80) in said


def test_ten_thousand_requests_are_drawn_with_two_thousand_points_and_the_page_says_so() -> None:
    text = html(example_run(), per_cell=1667)
    assert len(text) < 1_000_000
    for drawing in re.findall(r"<svg (?!class=\"key\").*?</svg>", text, re.DOTALL):
        points = drawing.count("<circle") + sum(
            len(re.findall("[MHL]", path)) for path in re.findall(r' d="([^"]*)"', drawing)
        )
        assert 0 < points <= 2010
    assert re.search(r"1000 of 1667 values are drawn", text)
    assert re.search(r"48 of 10002 requests are drawn", text)
    assert re.search(r"\d+ of \d+ gaps are drawn", text)


def test_points_are_chosen_evenly_even_from_a_series_that_repeats() -> None:
    chosen: Reservoir[int] = Reservoir(1000)
    for number in range(64_000):
        chosen.add(number)
    assert chosen.seen == 64_000
    assert len(set(chosen.items)) == 1000
    assert 400 < sum(number % 2 for number in chosen.items) < 600
    assert 400 < sum(number < 32_000 for number in chosen.items) < 600
    assert len({number % 64 for number in chosen.items}) == 64
    few: Reservoir[int] = Reservoir(10)
    for number in range(10):
        few.add(number)
    assert few.items == list(range(10))


def test_failed_requests_keep_a_distribution_below_all() -> None:
    assert "tiny 1 thread: 3 requests never got there, so it ends below 100 %." in html(example_run())


def test_a_search_shows_the_rates_it_tried() -> None:
    run = example_run()
    assert run.report is not None
    half = Estimate(value=0.97, low=0.9, high=0.99)
    run.report.search = [SearchStep(rate=2.0, share_good=half, holds=True, level_index=0)]
    run.report.highest_rate = Estimate(value=2.1, low=2.0, high=2.25)
    for said in (html(run), markdown(run)):
        assert "2.10 [2.00, 2.25] req/s" in plain(re.sub(r"</?span>", "", said))
        assert "97.0 [90.0, 99.0] %" in plain(re.sub(r"</?span>", "", said))


def test_what_has_no_interval_points_to_a_note_that_says_why() -> None:
    run = example_run()
    assert run.report is not None
    for cell in run.report.cells:
        cell.metrics["ttft"].percentiles["p95"] = Estimate(value=65, reason="n too small: 29")
        cell.totals["output_tps"] = Estimate(reason="The server counts no tokens.")
    said = plain(markdown(run))
    assert "| 65.0 ms [no interval: note 1] |" in said
    assert "| — [note 2] |" in said
    assert "Note 1: n too small: 29" in said
    assert "Note 2: The server counts no tokens." in said
    assert "Note 3" not in said


def test_verdicts_say_at_which_level_where_there_are_several() -> None:
    said = markdown(example_run())
    assert "- **slower**: concurrency 2: tiny 1 thread is slower than" in said
    assert "- **inconclusive**: concurrency 4: " in said


def test_many_verdicts_do_not_bury_the_figures() -> None:
    run = example_run()
    assert run.report is not None
    run.report.comparisons = run.report.comparisons * 20
    said = markdown(run).split("## Figures")
    assert said[0].count("is slower than") < 25
    assert "36 further comparisons are in the table" in said[0]
    assert said[1].count("| slower |") == 40
    assert "The first 40 of 60 comparisons are drawn" in html(run)


def test_cold_loads_and_the_machine_have_tables() -> None:
    said = plain(markdown(example_run()))
    assert "| tiny 2 threads | 29 | 1.90 [1.80, 2.00] s | 1.71 s | 3.04 s |" in said
    assert "| Figure | idle before | busy |" in said
    assert "| cpu_percent › mean | 2 | 71.23 |" in said  # noqa: RUF001 - parts of a path
    assert "| swap_in_bytes | — | 4500000000 |" in said


def test_open_loops_are_reported_from_the_intended_time() -> None:
    run = example_run().model_copy(update={"plan": Plan(load=OpenLoop(rates=[1.0]))})
    assert "First token, median, from the intended time" in markdown(run)
