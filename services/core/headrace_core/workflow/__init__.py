"""Write workflows: tasks, and rules that start, stop and restart them by events and by time.

A workflow file has no side effects when it is loaded; `headrace workflows apply FILE` compiles it to a JSON document and
uploads that.

    with Workflow("shop") as flow:
        train = BatchTask("train", run="headrace-train base --model ctr --until {event.context[to]}")
        train.start_on(event("samples", type="JOINED_UNTIL"), at_most_every="1d")
        train.start_at(cron="0 4 * * *", timezone="Asia/Shanghai")
"""

from headrace_core.workflow.conditions import Condition, all_of, any_of, at, count, event, sequence
from headrace_core.workflow.document import WorkflowError, validate
from headrace_core.workflow.load import compile_file
from headrace_core.workflow.parameters import parameter
from headrace_core.workflow.tasks import BatchTask, StreamTask, Task, Workflow

__all__ = [
    "BatchTask",
    "Condition",
    "StreamTask",
    "Task",
    "Workflow",
    "WorkflowError",
    "all_of",
    "any_of",
    "at",
    "compile_file",
    "count",
    "event",
    "parameter",
    "sequence",
    "validate",
]
