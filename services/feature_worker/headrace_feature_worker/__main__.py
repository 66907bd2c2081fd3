"""`headrace-feature-worker`: wiring only."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from headrace_core.contracts import Item, User
from headrace_core.definitions.features import DefinitionError, Feature, watch_features
from headrace_core.runtime.job import Job
from headrace_core.runtime.kafka_clients import idempotent_producer
from headrace_core.runtime.worker import run_worker
from headrace_core.stores.redis_views import catalog_item_key, catalog_user_key

from headrace_feature_worker.operators.behavior import BEHAVIOR, BehaviorOperator
from headrace_feature_worker.operators.catalog import CatalogOperator
from headrace_feature_worker.operators.ranking import PARTIALS, RankingOperator
from headrace_feature_worker.settings import FeatureWorkerSettings
from headrace_feature_worker.store.partials import FeatureSink
from headrace_feature_worker.store.shown import Shown
from headrace_feature_worker.store.views import ViewSink

EXIT_USAGE = 2


def feature_jobs(settings: FeatureWorkerSettings, features: list[Feature], shown: Shown) -> list[Job]:
    """The two stages of features, and the loaders of both catalogs."""

    def views(job: str) -> ViewSink:
        return ViewSink(settings.redis.get_secret_value(), settings.redis_timeout_ms, job, shown)

    def behavior(_: int) -> BehaviorOperator:
        return BehaviorOperator(features, lateness_ms=settings.lateness_ms, dedupe_window_ms=settings.dedupe_window_ms)

    def ranking(_: int) -> RankingOperator:
        return RankingOperator(features, lateness_ms=settings.lateness_ms)

    def catalog(name: str, topic: str, message: Any, redis_key: Callable[[str], str]) -> Job:
        return Job(
            name, (topic,), lambda _: CatalogOperator(message, redis_key), views(name),
            lacking=partial(shown.lacking, name),
        )  # fmt: skip

    sink = FeatureSink(views("features"), lambda: idempotent_producer(settings))
    return [
        Job("features", (BEHAVIOR,), behavior, sink, lateness_ms=settings.lateness_ms),
        Job("feature-ranking", (PARTIALS,), ranking, views("feature-ranking")),
        catalog("catalog-users", "users.v1", User, catalog_user_key),
        catalog("catalog-items", "items.v1", Item, catalog_item_key),
    ]


def main() -> None:
    """Entry point."""
    settings = FeatureWorkerSettings()
    try:
        watch = watch_features(settings.definitions / "features")
    except (DefinitionError, OSError) as error:
        sys.stderr.write(f"headrace-feature-worker: {error}\n")
        sys.exit(EXIT_USAGE)
    shown = Shown(settings.redis.get_secret_value(), settings.redis_timeout_ms)
    # Operators are made for their definitions: changed ones are taken by the next process, from the last checkpoint on.
    run_worker(
        "feature-worker", settings, feature_jobs(settings, watch.taken, shown), [shown.watch], until=watch.renewed
    )


if __name__ == "__main__":
    main()
