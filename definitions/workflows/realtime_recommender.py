"""The shipped flow: samples become a base model, the base increments, an increment is validated and served.

`headrace workflows apply definitions/workflows/realtime_recommender.py` uploads it. Parameters have other values in
`realtime_recommender.parameters.yaml` beside it, where there is one.
"""

from headrace_core.workflow import BatchTask, StreamTask, Workflow, count, event, parameter, sequence

with Workflow("realtime_recommender") as flow:
    train_base = BatchTask(
        "train_base",
        run="headrace-train base --model ctr --until {event.context[to]}",
        retries=2,
        backoff="10s",
        timeout="6h",
    )
    # A validation or a deployment that can't keep up goes on with the newest version, so the last one is never left out.
    validate_base = BatchTask(
        "validate_base",
        run="headrace-validate --model ctr_base --version {event.value}",
        resident="model-validator",
        retries=1,
        queue="newest",
    )
    train_incremental = StreamTask("train_incremental", service="trainer")
    validate = BatchTask(
        "validate",
        run="headrace-validate --model ctr --version {event.value}",
        resident="model-validator",
        retries=1,
        queue="newest",
    )
    deploy = BatchTask(
        "deploy",
        run="headrace-deploy --model ctr --version {event.value}",
        resident="model-validator",
        retries=1,
        queue="newest",
    )

    # stream → batch: the first samples that are joined make a base, and then once a day.
    joined = event("samples", type="JOINED_UNTIL")
    train_base.start_on(count(joined, parameter("base_after_marks", 1), within="1h"), at_most_every="1d")
    # A base that came to nothing is tried again with what was joined since, or there would be none for a day. Marks, of which
    # there is one a minute, set the pace: a rule that rests by at_most_every sees nothing, the next failure neither. What
    # fails does so soon, for something that is away or too few samples. What is rejected has read the whole store, and more of
    # the same samples is rejected again.
    train_base.start_on(sequence(train_base.failed(), count(joined, 10)), name="train_base.start_after_failure")
    train_base.start_on(
        sequence(event("ctr_base", type="MODEL_REJECTED"), count(joined, 60)), name="train_base.start_after_rejection"
    )
    validate_base.start_on(event("ctr_base", type="MODEL_GENERATED"))
    # batch → stream: increments go on from the new base.
    train_incremental.restart_on(event("ctr_base", type="MODEL_VALIDATED"))
    # stream → batch
    validate.start_on(event("ctr", type="MODEL_GENERATED"))
    deploy.start_on(event("ctr", type="MODEL_VALIDATED"))
