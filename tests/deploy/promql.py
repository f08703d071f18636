"""Holds a PromQL expression against the metrics and labels that exist, and says which labels its result has.

Prometheus accepts an expression over a metric that nobody exports, groups by a label that does not exist, and joins
vectors whose labels never match: each gives an empty graph or an alert that never fires, without any error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import promql_parser as promql

#: Put on every series by the scrape.
TARGET_LABELS = frozenset({"job", "instance"})

#: These want a counter; on a gauge their result is nonsense.
_OF_COUNTERS = {"rate", "irate", "increase"}
#: These want a gauge; a counter's restart would be a fall.
_OF_GAUGES = {"delta", "idelta", "deriv", "predict_linear", "holt_winters"}
_SET_OPERATORS = {"and", "or", "unless"}
#: Aggregations that keep the series as they are.
_CHOOSING = {"topk", "bottomk"}


@dataclass(frozen=True, slots=True)
class Series:
    """One name that can stand in an expression; ``labels`` are complete, those of the target and ``le`` included."""

    kind: Literal["counter", "gauge"]
    labels: frozenset[str]


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Return every series that an expression selects, with its matchers as they stand there."""
    found: list[tuple[str, set[str]]] = []

    def note(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append((node.name or "", {str(matcher) for matcher in node.matchers.matchers}))

    promql.walk(promql.parse(expression), note)
    return found


class Unsound(AssertionError):
    """An expression that cannot give what it looks like."""


class Vocabulary:
    """All series there are.

    Args:
        series: name as it stands in an expression (``…_bucket``, ``…_total``) -> what it is.
    """

    def __init__(self, series: Mapping[str, Series]) -> None:
        self._series = dict(series)

    def add(self, name: str, labels: frozenset[str]) -> None:
        """Make what a recording rule writes known to the expressions after it."""
        self._series[name] = Series("gauge", labels)

    def labels(self, expression: str) -> frozenset[str]:
        """Return the labels of the result; none for a scalar.

        Raises:
            Unsound: it names what does not exist, or uses it in a way that cannot work.
        """
        try:
            return self._of(promql.parse(expression)) or frozenset()
        except Unsound as error:
            raise Unsound(f"{error}\n  in: {expression}") from None

    def series_labels(self, name: str) -> frozenset[str]:
        """Return the labels of one series; none if nothing exports it."""
        series = self._series.get(name)
        return series.labels if series else frozenset()

    def _of(self, node: promql.Expr) -> frozenset[str] | None:
        """Return the labels of a vector, None of a scalar."""
        labels: frozenset[str] | None = None
        match node:
            case promql.VectorSelector():
                labels = self._selected(node, within=None)
            case promql.MatrixSelector():
                labels = self._selected(node.vector_selector, within=None)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                labels = self._of(node.expr)
            case promql.AggregateExpr():
                labels = self._aggregated(node)
            case promql.BinaryExpr():
                labels = self._combined(node)
            case promql.Call():
                labels = self._called(node)
        return labels  # none of these: a number or a text

    def _selected(self, node: promql.VectorSelector, within: str | None) -> frozenset[str]:
        series = self._series.get(node.name or "")
        if series is None:
            raise Unsound(f"nothing exports {node.name}")
        for matcher in node.matchers.matchers:
            if matcher.name not in series.labels:
                raise Unsound(f"{node.name} has no label {matcher.name}, only {sorted(series.labels)}")
        if series.kind == "counter" and within not in _OF_COUNTERS:
            raise Unsound(f"{node.name} is a counter and says nothing without rate() or increase()")
        if series.kind == "gauge" and within in _OF_COUNTERS:
            raise Unsound(f"{node.name} is a gauge and {within}() wants a counter")
        return series.labels

    def _called(self, node: promql.Call) -> frozenset[str] | None:
        name = node.func.name
        vectors = []
        for argument in node.args:
            if isinstance(argument, promql.MatrixSelector):
                vectors.append(self._selected(argument.vector_selector, within=name))
            else:
                inner = self._of(argument)
                vectors += [] if inner is None else [inner]
        if name in {"scalar", "time", "pi"}:
            return None
        if name == "vector":
            return frozenset()
        if len(vectors) != 1:
            raise Unsound(f"{name}() of {len(vectors)} vectors is not known here")
        if name == "histogram_quantile":
            if "le" not in vectors[0]:
                raise Unsound("histogram_quantile() needs the label le; the aggregation below it dropped it")
            return vectors[0] - {"le"}
        if name in _OF_GAUGES or name in _OF_COUNTERS or "le" not in vectors[0]:
            return vectors[0]
        raise Unsound(f"{name}() of single buckets")

    def _aggregated(self, node: promql.AggregateExpr) -> frozenset[str]:
        inner = self._of(node.expr)
        if inner is None:
            raise Unsound("an aggregation of a scalar")
        if node.modifier is None:
            return inner if str(node.op) in _CHOOSING else frozenset()
        wanted = frozenset(node.modifier.labels)
        if not wanted <= inner:
            raise Unsound(f"{node.op} over {sorted(wanted - inner)}, but there are only {sorted(inner)}")
        if str(node.op) in _CHOOSING:
            return inner
        return wanted if node.modifier.type is promql.AggModifierType.By else inner - wanted

    def _combined(self, node: promql.BinaryExpr) -> frozenset[str] | None:
        left, right = self._of(node.lhs), self._of(node.rhs)
        if left is None or right is None:
            return left if right is None else right
        modifier = node.modifier
        matching = modifier.matching if modifier else None
        if matching is None:
            compared = left, right
        elif matching.type is promql.LabelModifierType.Include:
            on = frozenset(matching.labels)
            if not on <= left & right:
                raise Unsound(f"on{sorted(on)}, but the sides have {sorted(left)} and {sorted(right)}")
            compared = on, on
        else:
            compared = left - set(matching.labels), right - set(matching.labels)
        if compared[0] != compared[1] and str(node.op) != "or":
            raise Unsound(f"never matches: one side has {sorted(compared[0])}, the other {sorted(compared[1])}")
        if str(node.op) in _SET_OPERATORS:
            return left
        if modifier is None or modifier.card == promql.VectorMatchCardinality.OneToOne:
            return compared[0]
        many, one = (left, right) if modifier.card == promql.VectorMatchCardinality.ManyToOne else (right, left)
        group = frozenset(modifier.group_labels or ())
        if not group <= one:
            raise Unsound(f"takes {sorted(group - one)} from a side without it")
        return many | group
