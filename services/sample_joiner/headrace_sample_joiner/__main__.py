"""`headrace-sample-joiner`: wiring only."""

from headrace_core.runtime.job import Job, Outbox
from headrace_core.runtime.worker import run_worker

from headrace_sample_joiner.joiner.operator import BEHAVIOR, LOGS, JoinOperator
from headrace_sample_joiner.marks import MarkTeller
from headrace_sample_joiner.sample_set import load_sample_set
from headrace_sample_joiner.settings import SampleJoinerSettings
from headrace_sample_joiner.store.sample_store import SampleStore


def joiner_job(settings: SampleJoinerSettings) -> Job:
    """The job of this service."""
    samples = load_sample_set(settings.definitions / "samples" / "click.yaml")

    window_ms = settings.attribution_window_ms or samples.window_ms

    def operator(_: int) -> JoinOperator:
        return JoinOperator(
            window_ms=window_ms,
            lateness_ms=settings.lateness_ms,
            horizon_ms=samples.horizon_ms,
            dedupe_window_ms=settings.dedupe_window_ms,
            actions=samples.actions,
        )

    return Job(
        name="sample-joiner",
        inputs=(BEHAVIOR, LOGS),
        operator=operator,
        sink=SampleStore(),
        outbox=Outbox("samples.changes", "samples.v1"),
        lateness_ms=settings.lateness_ms,
        # Or windows would end before the logs of their impressions are read; what is fetched already leads by as much again.
        drift_ms=window_ms // 4,
    )


def main() -> None:
    """Entry point."""
    settings = SampleJoinerSettings()
    job = joiner_job(settings)
    samples = load_sample_set(settings.definitions / "samples" / "click.yaml")
    marks = MarkTeller(
        postgres=settings.postgres.get_secret_value(),
        control=settings.control,
        job=job.name,
        window_ms=settings.attribution_window_ms or samples.window_ms,
        every_ms=settings.joined_mark_ms,
    )
    run_worker("sample-joiner", settings, [job], [marks.run])


if __name__ == "__main__":
    main()
