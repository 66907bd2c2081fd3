"""Feeds an operator as the runtime does."""

from collections.abc import Sequence
from typing import Any

import msgspec
from headrace_core.contracts import BehaviorEvent, FeatureLog
from headrace_core.runtime.operator import Batch, Output
from headrace_sample_joiner.joiner.operator import BEHAVIOR, LOGS, JoinOperator

from tests.unit.joiner.events import START, ARecord

WINDOW, LATENESS, HORIZON = 60_000, 10_000, 86_400_000
Message = BehaviorEvent | FeatureLog


def an_operator(**settings: int) -> JoinOperator:
    return JoinOperator(
        **{"window_ms": WINDOW, "lateness_ms": LATENESS, "horizon_ms": HORIZON, "dedupe_window_ms": 600_000} | settings,
        actions=frozenset({2, 4, 5, 6, 7, 8}),
    )


def feed(operator: JoinOperator, *messages: Message, logs_lag: bool = False) -> list[Any]:
    """Effects of some messages, with the accounting of a flush at the end.

    Time of both inputs follows the behaviour events, unless the log input lags behind.
    """
    out = Output()
    for n, message in enumerate(messages):
        topic = LOGS if isinstance(message, FeatureLog) else BEHAVIOR
        operator.process(Batch(topic, 0, [ARecord(message.SerializeToString(), offset=n)]), out)
        if not logs_lag:
            operator.advance(operator._high - LATENESS, out)
    operator.flush(out)
    assert not out.rejected
    return out.effects


def let_pass(operator: JoinOperator, at: int) -> list[Any]:
    """Effects of a watermark, ms after START, with the accounting of a flush at the end."""
    out = Output()
    operator.advance(START + at, out)
    operator.flush(out)
    return out.effects


def content(operator: JoinOperator) -> Any:
    """All that a snapshot holds, free of the order in which dictionaries were filled."""
    return msgspec.msgpack.decode(operator.snapshot())


def restored(snapshot: bytes | None, changes: Sequence[bytes], **settings: int) -> JoinOperator:
    operator = an_operator(**settings)
    operator.restore(snapshot, changes)
    return operator
