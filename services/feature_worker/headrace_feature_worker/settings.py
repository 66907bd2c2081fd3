"""Settings of the feature worker."""

from headrace_core.runtime.worker import WorkerSettings
from headrace_core.settings import RedisSettings


class FeatureWorkerSettings(WorkerSettings, RedisSettings):
    """What a stream worker needs, and Redis."""
