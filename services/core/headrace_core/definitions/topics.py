"""Topics, as definitions/topics/*.yaml tell them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}
_DEAD_LETTER_RETENTION_MS: Final = 7 * _UNITS_MS["d"]


class TopicError(Exception):
    """A topic file is wrong; the message tells file, line and fault."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic to create.

    Attributes:
        name: with its version.
        partitions: fixed for the topic's life.
        retention_ms: -1 for ever.
        compacted: whether only the newest value of a key is kept.
        copartitioned_with: topics that must have as many partitions.
    """

    name: str
    partitions: int
    retention_ms: int
    compacted: bool
    copartitioned_with: tuple[str, ...] = ()


def load_topics(folder: Path, partitions: int | None = None) -> list[Topic]:
    """All topics of a folder, dead-letter topics included.

    Args:
        folder: holds *.yaml and topic.schema.json.
        partitions: replaces the count of every topic that has more than one partition.

    Raises:
        TopicError: a file is wrong.
    """
    schema = json.loads((folder / "topic.schema.json").read_text(encoding="utf-8"))
    topics = [t for file in sorted(folder.glob("*.yaml")) for t in _load(file, schema, partitions)]
    if not topics:
        raise TopicError(f"{folder}: no topic is defined here")
    counts = {t.name: t.partitions for t in topics}
    for topic in topics:
        for other in topic.copartitioned_with:
            if counts.get(other) != topic.partitions:
                raise TopicError(
                    f"{folder}: {topic.name} has {topic.partitions} partitions and must have as many as {other}, "
                    f"which has {counts.get(other, 'no definition')}"
                )
    return topics


def _load(file: Path, schema: dict[str, Any], partitions: int | None) -> Iterator[Topic]:
    try:
        data: Any = YAML().load(file)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise TopicError(f"{file}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}") from error
    for fault in jsonschema.Draft202012Validator(schema).iter_errors(_plain(data)):
        raise TopicError(f"{file}:{_line(data, list(fault.absolute_path))}: {fault.message}")
    count = data["partitions"]
    if partitions is not None and count > 1:
        count = partitions
    yield Topic(
        data["topic"], count, _retention(data["retention"]), data["cleanup"] == "compact",
        tuple(data.get("copartitioned_with", ())),
    )  # fmt: skip
    if data.get("dead_letters"):
        yield Topic(f"{data['topic']}.dlq", count, _DEAD_LETTER_RETENTION_MS, compacted=False)


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _line(data: Any, path: list[Any]) -> int:
    """Line of the deepest key of the path that the file has, from 1."""
    line = 1
    for key in path:
        try:
            line = data.lc.data[key][0] + 1
            data = data[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _retention(text: str) -> int:
    if text == "forever":
        return -1
    match = re.fullmatch(r"(\d+)([dhm])", text)
    if match is None:
        raise ValueError(text)  # the schema holds it
    return int(match[1]) * _UNITS_MS[match[2]]
