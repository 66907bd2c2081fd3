"""The subset of SQL in definitions, compiled to Python for streams.

Columns are the event's fields, `segment.<name>` and `attributes.<name>`. An empty text is NULL, as protobuf cannot tell them
apart; numbers are never NULL. A comparison with NULL is unknown, and `where` takes what is true: NOT is pushed down to
the comparisons first, so unknown never becomes true.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import sqlglot
from sqlglot import exp

from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent

Predicate = Callable[[BehaviorEvent], bool]

_TEXTS: Final = frozenset({
    "event_id", "user_id", "item_id", "item_type", "category", "page_id", "request_id", "view_id", "query", "corrects",
})  # fmt: skip
_NUMBERS: Final = frozenset({"event_time", "ingest_time", "position", "dwell_ms"})
_MAPS: Final = frozenset({"segment", "attributes"})
_COMPARISONS: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "==", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_OPPOSITE: Final = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MIRROR: Final = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


class ExpressionError(Exception):
    """The text is not of the subset; the message says what of it."""


def compile_predicate(text: str) -> Predicate:
    """A function that tells whether the condition is true of an event.

    Raises:
        ExpressionError: it can't be compiled.
    """
    try:
        tree = sqlglot.parse_one(text, dialect="duckdb")
    except sqlglot.errors.ParseError as error:
        raise ExpressionError(f"not SQL: {text!r}: {error.errors[0].get('description', error)}") from error
    return _function(_condition(tree, negated=False))  # type: ignore[no-any-return]  # bool by construction


def compile_key(columns: list[str]) -> Callable[[BehaviorEvent], tuple[str, ...] | None]:
    """A function that gives the values of text columns, None if one of them is NULL.

    Raises:
        ExpressionError: a column does not exist or is no text.
    """
    parts = []
    for column in columns:
        source, kind = _column(column)
        if kind != "text":
            raise ExpressionError(f"{column} is no text")
        parts.append(source)
    values = "".join(f"{p}, " for p in parts)
    source = f"k if all(k := ({values})) else None" if len(parts) > 1 else f"({values}) if {parts[0]} else None"
    return _function(source)  # type: ignore[no-any-return]  # a tuple or None by construction


def _function(source: str) -> Any:
    # The source holds nothing but the whitelisted forms below, with literals through repr.
    return eval(f"lambda e: {source}", {"__builtins__": {"all": all}})  # noqa: S307


def _column(name: str) -> tuple[str, str]:
    if name in _TEXTS:
        return f"e.{name}", "text"
    if name in _NUMBERS:
        return f"e.{name}", "number"
    if name == "action":
        return "e.action", "action"
    table, _, key = name.partition(".")
    if table in _MAPS and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        return f"e.{table}.get({key!r}, '')", "text"
    raise ExpressionError(f"no such column: {name}")


def _condition(node: exp.Expr, *, negated: bool) -> str:  # noqa: PLR0911  # a case per form of the subset
    if isinstance(node, exp.Paren):
        return _condition(node.this, negated=negated)
    if isinstance(node, exp.Boolean):
        return str(node.this != negated)
    if isinstance(node, exp.Not):
        return _condition(node.this, negated=not negated)
    if isinstance(node, exp.And | exp.Or):
        word = "and" if isinstance(node, exp.And) != negated else "or"
        return f"({_condition(node.left, negated=negated)} {word} {_condition(node.right, negated=negated)})"
    if isinstance(node, exp.In):
        return _membership(node, negated=negated)
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
        source, kind = _operand(node.this)
        if kind != "text":
            return "True" if negated else "False"
        return f"({source} != '')" if negated else f"({source} == '')"
    operator = _COMPARISONS.get(type(node))
    if operator is None or not isinstance(node, exp.Binary):
        raise ExpressionError(f"not supported here: {node.sql()}")
    return _comparison(node.left, _OPPOSITE[operator] if negated else operator, node.right)


def _comparison(left: exp.Expr, operator: str, right: exp.Expr) -> str:
    if isinstance(left, exp.Literal):
        left, operator, right = right, _MIRROR[operator], left
    source, kind = _operand(left)
    value = _literal(right, kind)
    if kind == "action" and operator not in {"==", "!="}:
        raise ExpressionError("actions have no order")
    if kind == "text":
        return f"({source} != '' and {source} {operator} {value})"
    return f"({source} {operator} {value})"


def _membership(node: exp.In, *, negated: bool) -> str:
    source, kind = _operand(node.this)
    values = "".join(f"{_literal(v, kind)}, " for v in node.expressions)
    if not values:
        raise ExpressionError(f"IN wants a list of literals: {node.sql()}")
    guard = f"{source} != '' and " if kind == "text" else ""
    return f"({guard}{source} {'not in' if negated else 'in'} ({values}))"


def _operand(node: exp.Expr) -> tuple[str, str]:
    if not isinstance(node, exp.Column):
        raise ExpressionError(f"want a column: {node.sql()}")
    return _column(f"{node.table}.{node.name}" if node.table else node.name)


def _literal(node: exp.Expr, kind: str) -> str:
    if not isinstance(node, exp.Literal):
        raise ExpressionError(f"want a literal: {node.sql()}")
    if kind == "number":
        if node.is_string:
            raise ExpressionError(f"want a number: {node.sql()}")
        return repr(float(node.this))
    if not node.is_string:
        raise ExpressionError(f"want a text: {node.sql()}")
    if kind == "action":
        if node.this not in ACTION_BY_NAME:
            raise ExpressionError(f"no such action: {node.this}")
        return repr(ACTION_BY_NAME[node.this])
    return repr(str(node.this))
