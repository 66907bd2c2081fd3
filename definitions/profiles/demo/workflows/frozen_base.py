"""Scores what serves beside the first base, frozen, all along: the console draws both, and the gap between them.

`headrace workflows apply definitions/profiles/demo/workflows/frozen_base.py` uploads it.
"""

from headrace_core.workflow import BatchTask, Workflow, event

with Workflow("frozen_base") as flow:
    # Samples of the last minute and a half: those of the minute before the attribution window.
    score = BatchTask(
        "score",
        run="headrace models frozen ctr {event.value} --since 90s --record --json",
        retries=1,
        backoff="5s",
        timeout="2m",
        queue="newest",
    )

    score.start_on(event("ctr", type="MODEL_DEPLOYED"), at_most_every="15s")
