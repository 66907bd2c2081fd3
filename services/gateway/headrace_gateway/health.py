"""Whether the gateway can do something useful, and what it lacks."""

from dataclasses import dataclass, field

from headrace_gateway.catalog.snapshot import ItemSnapshot
from headrace_gateway.stores.kafka_writer import KafkaWriter
from headrace_gateway.stores.redis_reader import RedisReader


@dataclass(slots=True)
class Health:
    """State of the process.

    Attributes:
        events: the way to Kafka.
        redis: the way to Redis.
        snapshot: items that can be recommended from memory.
        started: the first attempts to connect have ended.
        stopping: the process was told to end.
    """

    events: KafkaWriter
    redis: RedisReader
    snapshot: ItemSnapshot
    started: bool = field(default=False)
    stopping: bool = field(default=False)

    def dependencies(self) -> dict[str, str]:
        """Each dependency: "up", or why it is not."""
        return {"kafka": self.events.away or "up", "redis": self.redis.away or "up"}

    def missing(self) -> str | None:
        """Why nothing useful can be served; None when something can.

        Without Kafka recommendations go on, without Redis events are taken and items are recommended from memory. Only with
        neither, and no item in memory, is there nothing to answer with.
        """
        if self.stopping:
            return "stopping"
        if not self.started:
            return "starting"
        if self.events.away and self.redis.away and not len(self.snapshot):
            return "neither Kafka nor Redis nor an item in memory"
        return None
