"""`headrace-feature-worker`: wiring only."""

import sys

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
from headrace_feature_worker.store.views import ViewSink

EXIT_USAGE = 2


def feature_jobs(settings: FeatureWorkerSettings, features: list[Feature]) -> list[Job]:
    """The two stages of features, and the loaders of both catalogs."""

    def views() -> ViewSink:
        return ViewSink(settings.redis.get_secret_value(), settings.redis_timeout_ms)

    def behavior(_: int) -> BehaviorOperator:
        return BehaviorOperator(features, lateness_ms=settings.lateness_ms, dedupe_window_ms=settings.dedupe_window_ms)

    def ranking(_: int) -> RankingOperator:
        return RankingOperator(features, lateness_ms=settings.lateness_ms)

    sink = FeatureSink(views(), lambda: idempotent_producer(settings))
    return [
        Job("features", (BEHAVIOR,), behavior, sink, lateness_ms=settings.lateness_ms),
        Job("feature-ranking", (PARTIALS,), ranking, views()),
        Job("catalog-users", ("users.v1",), lambda _: CatalogOperator(User, catalog_user_key), views()),
        Job("catalog-items", ("items.v1",), lambda _: CatalogOperator(Item, catalog_item_key), views()),
    ]


def main() -> None:
    """Entry point."""
    settings = FeatureWorkerSettings()
    try:
        watch = watch_features(settings.definitions / "features")
    except (DefinitionError, OSError) as error:
        sys.stderr.write(f"headrace-feature-worker: {error}\n")
        sys.exit(EXIT_USAGE)
    # Operators are made for their definitions: changed ones are taken by the next process, from the last checkpoint on.
    run_worker("feature-worker", settings, feature_jobs(settings, watch.taken), until=watch.renewed)


if __name__ == "__main__":
    main()
