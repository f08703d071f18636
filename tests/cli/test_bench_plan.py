"""What the options of ``ai-lab bench`` mean, and what is said of those that mean nothing."""

from pathlib import Path
from typing import Any

import pytest

from ai_lab.benchmarks.plan import GoodputSearch, Iterations, OpenLoop
from ai_lab.cli.bench_plan import arm_of, plan_of, share_of
from ai_lab.errors import InvalidRequest


def test_options_become_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-1")
    plan = plan_of(
        {
            "models": ["a,engine.threads=2,options.temperature=0.5,name=x", "b,url=http://10.0.0.1:1"],
            "iterations": 7,
            "concurrency": "1,4",
            "slo": "ttft=500,share=0.9",
            "shared_tokens": 16,
            "margin": "5%",
            "title": "T",
        }
    )
    assert isinstance(plan.load, Iterations)
    assert (plan.load.requests, plan.load.concurrency, plan.title) == (7, [1, 4], "T")
    assert plan.arms[0].engine
    assert (plan.arms[0].name, plan.arms[0].engine.threads, plan.arms[0].options) == ("x", 2, {"temperature": 0.5})
    assert plan.arms[1].url == "http://10.0.0.1:1"
    assert plan.slo
    assert (plan.slo.ttft_ms, plan.slo.share, plan.equivalence_margin) == (500, 0.9, 0.05)
    assert (plan.prompts.mode, plan.prompts.shared_tokens) == ("shared_prefix", 16)

    opened = plan_of({"rate": "0.5,2", "arrivals": "constant", "iterations": 30}).load
    assert isinstance(opened, OpenLoop)
    assert (opened.rates, opened.arrivals, opened.requests) == ([0.5, 2], "constant", 30)
    search = plan_of({"search": True, "slo": "e2e=900", "rate": "3"}).load
    assert isinstance(search, GoodputSearch)
    assert (search.start_rate, search.slo.e2e_ms) == (3, 900)


def test_a_key_goes_to_the_server_that_it_is_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_A", "sk-a")
    monkeypatch.setenv("KEY_B", "sk-b")
    models = ["a", "b,url=http://10.0.0.2", "c,url=http://10.0.0.3,api_key_from=KEY_B"]
    arms = plan_of({"models": models, "target": "http://10.0.0.1", "api_key_from": "KEY_A"}).arms
    assert [arm.api_key.get_secret_value() if arm.api_key else None for arm in arms] == ["sk-a", None, "sk-b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"iterations": 0}, r"^--iterations: should be greater than or equal to 1$"),
        ({"iterations": -5}, r"^--iterations: "),
        ({"iterations": 1_000_000}, r"^--iterations: should be less than or equal to 100000$"),
        ({"iterations": 100_000, "concurrency": "1,2"}, "200000 requests are more than 100000"),
        ({"concurrency": "0"}, r"^--concurrency: should be"),
        ({"concurrency": "1,b"}, r"^--concurrency: '1,b' is no list of numbers such as 1,2,4"),
        ({"rate": "0"}, r"^--rate: "),
        ({"rate": "1", "concurrency": "2"}, "give one of them"),
        ({"arrivals": "odd", "rate": "1"}, r"^--arrivals: should be 'constant', 'poisson' or 'gamma'$"),
        ({"prompt_tokens": 1}, r"^--prompt-tokens: "),
        ({"prompt_mode": "odd"}, r"^--prompt-mode: should be 'unique'"),
        ({"search": True}, r"^--search needs .*--slo ttft=500"),
        ({"slo": "foo=3"}, r"^--slo: 'foo=3' is no limit\. There are ttft, tpot, e2e, share"),
        ({"slo": "ttft"}, r"^--slo: 'ttft' is no limit"),
        ({"slo": "share=0.9"}, r"^--slo: Give at least one of"),
        ({"margin": "300%"}, r"^--margin: '300%' is no share"),
        ({"api_key_from": "NO_SUCH_VARIABLE"}, r"^--api-key-from: the environment has no variable NO_SUCH_VARIABLE"),
        ({"models": ["a,threads=2"]}, r"^'threads=2' is no setting of a model\. There are name=….*engine\.threads=…"),
        ({"models": ["a,engine.thread=2"]}, r"^'engine\.thread=2' is no setting"),
        ({"models": ["a,engine.threads=0"]}, r"^arm 1\.engine\.threads: should be greater"),
        ({"models": ["a", "a"]}, "same name"),
        ({"models": ["a"], "target": "nowhere"}, "A server's address is like http"),
        ({"prompts": Path("/no/such/file")}, r"^--prompts: /no/such/file cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_said_with_the_option(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        plan_of(given)
    assert "\n" not in caught.value.detail


def test_prompts_come_from_a_file(tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("one\n\ntwo words\n", encoding="utf-8")
    assert plan_of({"prompts": text}).prompts.texts == ["one", "two words"]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "one"}\n{"text": "two"}\n', encoding="utf-8")
    assert plan_of({"prompts": lines}).prompts.texts == ["one", "two"]
    lines.write_text('{"prompt": "one"}\n{"other": "two"}\n', encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"line 2 of .* has no field prompt"):
        plan_of({"prompts": lines})
    text.write_text("\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="no prompt in it"):
        plan_of({"prompts": text})


def test_shares_and_settings() -> None:
    assert (share_of("--x", "5%"), share_of("--x", "0.05"), share_of("--x", None)) == (0.05, 0.05, None)
    assert arm_of(",name=default") == {"name": "default"}
    assert arm_of("m,options.stop=[1],options.mode=fast")["options"] == {"stop": [1], "mode": "fast"}
