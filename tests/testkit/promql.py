"""Expressions of Prometheus, read as far as is needed to know what they name.

Not a parser: it tells brackets that do not match, functions that do not exist, and words that can
mean nothing; what it reads is told by name, for others to compare with what there is.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

FUNCTIONS = {
    *("absent", "absent_over_time", "avg_over_time", "ceil", "changes", "clamp_max", "clamp_min"),
    *("delta", "deriv", "floor", "histogram_quantile", "increase", "irate", "label_replace"),
    *("max_over_time", "min_over_time", "predict_linear", "rate", "round", "scalar"),
    *("sum_over_time", "time", "timestamp", "vector"),
}
AGGREGATIONS = {"avg", "bottomk", "count", "group", "max", "min", "quantile", "sum", "topk"}
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset"}

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<number>\d[\d.]*(?:ms|[smhdwy])?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=,])
      | (?P<bracket>[][(){}])
    )""",
    re.VERBOSE,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


class Selector(NamedTuple):
    metric: str
    # Label, operator and value.
    matchers: tuple[tuple[str, str, str], ...]


class Expression(NamedTuple):
    selectors: list[Selector]
    # Labels by which something is grouped or matched.
    listed: set[str]


class Wrong(ValueError):
    """No expression."""


def read(expression: str) -> Expression:
    tokens = list(_tokens(expression))
    _check_brackets(tokens, expression)
    selectors: list[Selector] = []
    listed: set[str] = set()
    at = 0
    while at < len(tokens):
        kind, word = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "name" or word in WORDS:
            continue
        if word in LISTS:
            end = _end(tokens, at, "(", ")", expression)
            listed |= {each for kind, each in tokens[at:end] if kind == "name"}
            at = end
        elif word in AGGREGATIONS or following == "(":
            if word not in AGGREGATIONS | FUNCTIONS:
                raise Wrong(f"{word} is no function: {expression}")
        elif following == "{":
            end = _end(tokens, at, "{", "}", expression)
            inside = "".join(each for _, each in tokens[at + 1 : end - 1])
            if not re.fullmatch(rf"{_MATCHER.pattern}(,{_MATCHER.pattern})*", inside):
                raise Wrong(f"{{{inside}}} names no labels: {expression}")
            found = tuple((m[1], m[2], m[3]) for m in _MATCHER.finditer(inside))
            selectors.append(Selector(word, found))
            at = end
        else:
            selectors.append(Selector(word, ()))
    return Expression(selectors, listed)


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression.rstrip()):
        found = _TOKEN.match(expression, at)
        if found is None:
            raise Wrong(f"{expression[at:]!r} cannot be read: {expression}")
        kind = found.lastgroup or ""
        yield kind, found[kind]
        at = found.end()


def _check_brackets(tokens: list[tuple[str, str]], expression: str) -> None:
    opened = []
    for kind, word in tokens:
        if kind != "bracket":
            continue
        if word not in _PAIRS:
            opened.append(word)
        elif not opened or opened.pop() != _PAIRS[word]:
            raise Wrong(f"{word} closes nothing: {expression}")
    if opened:
        raise Wrong(f"{opened[-1]} is not closed: {expression}")


def _end(tokens: list[tuple[str, str]], at: int, opens: str, closes: str, expression: str) -> int:
    """Behind the bracket that closes the one here; such lists hold no others."""
    if tokens[at][1] != opens:
        raise Wrong(f"{opens} is missing: {expression}")
    return next(n for n in range(at, len(tokens)) if tokens[n][1] == closes) + 1
