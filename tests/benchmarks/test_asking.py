"""Plans in few words."""

from typing import Any

import pytest

from ai_lab.benchmarks.asking import plan_for
from ai_lab.benchmarks.plan import Arm, Iterations, OpenLoop, Plan
from ai_lab.errors import InvalidRequest


def test_nothing_said_is_the_default_plan() -> None:
    assert plan_for() == Plan()


def test_few_words_are_enough() -> None:
    plan = plan_for("a", {"model": "b", "options": {"top_p": 1}}, Arm(model="c"), options={"seed": 1}, iterations=3)
    assert [arm.options for arm in plan.arms] == [{"seed": 1}, {"seed": 1, "top_p": 1}, {"seed": 1}]
    assert isinstance(plan.load, Iterations)
    assert plan.load.requests == 3
    assert plan_for(concurrency=[1, 2]).levels() == [1, 2]
    assert plan_for(concurrency=4).levels() == [4]
    assert isinstance(plan_for(rate=2.5).load, OpenLoop)
    assert plan_for(prompt="Hi").prompts.texts == ["Hi"]
    assert plan_for("a", url="http://10.0.0.1").arms[0].url == "http://10.0.0.1"


def test_what_is_wrong_is_said_in_the_words_that_were_used() -> None:
    with pytest.raises(InvalidRequest, match=r"^iterations: should be greater than or equal to 1; concurrency: "):
        plan_for(iterations=0, concurrency=0)
    with pytest.raises(InvalidRequest, match=r"^iteration: there is nothing of that name$"):
        plan_for(iteration=3)
    with pytest.raises(InvalidRequest, match=r"^arm 2\.engine\.threads: "):
        plan_for("a", {"model": "b", "engine": {"threads": 0}})
    with pytest.raises(InvalidRequest, match=r"^slo: Field required$"):
        plan_for(search=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"arrivals": "constant"},
        {"search": True, "slo": {"e2e_ms": 9}, "arrivals": "constant", "rate": 1},
        {"search": True, "slo": {"e2e_ms": 9}, "concurrency": 2},
        {"search": True, "slo": {"e2e_ms": 9}, "rate": [1, 2]},
        {"iterations": 3, "load": {"mode": "closed", "requests": 7}},
        {"rate": 3, "load": {"mode": "closed", "requests": 7}},
    ],
)
def test_what_contradicts_is_refused_and_not_dropped(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        plan_for("echo/echo", **fields)
