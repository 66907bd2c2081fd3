"""The topics' files, the messages they name, and what docs say of them."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from headrace_core import contracts  # noqa: F401  # registers every message
from headrace_core.definitions.topics import TopicError, load_topics
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "definitions" / "topics"
FILES = sorted(FOLDER.glob("*.yaml"))
SERVICES = {folder.name.replace("_", "-") for folder in (ROOT / "services").iterdir() if folder.is_dir()}
#: Producers and consumers that are no service of today's tree.
OTHERS = {"batch jobs", "anyone", "archiver", "trainer", "control-plane"}


def topic_row(name: str) -> list[str]:
    """Cells of the row of a topic in docs/contracts.md."""
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    table = text[text.index("## Topics") :].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    found = [row for row in rows if name in [part.strip("| ") for part in row[0].split(",")]]
    assert len(found) == 1, f"docs/contracts.md has {len(found)} rows of {name}"
    return found[0]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_topic_names_a_message_whose_comment_names_the_topic(file: Path) -> None:
    topic = YAML(typ="safe").load(file)
    message = descriptor_pool.Default().FindMessageTypeByName(topic["message"])

    source = (ROOT / "protos" / message.file.name).read_text(encoding="utf-8")

    comment = re.search(rf"((?:^//.*\n)+)message {message.name} ", source, re.MULTILINE)
    assert comment is not None
    assert topic["topic"] in comment[1]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_topic_is_in_the_docs_with_its_message(file: Path) -> None:
    topic = YAML(typ="safe").load(file)

    row = topic_row(topic["topic"])

    assert topic["message"].rsplit(".", 1)[1] in row[2]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_topic_is_written_read_and_owned_by_what_there_is(file: Path) -> None:
    topic = YAML(typ="safe").load(file)

    assert {topic["owner"], *topic["producers"], *topic["consumers"]} <= SERVICES | OTHERS


def test_file_is_named_after_its_topic() -> None:
    for file in FILES:
        assert YAML(typ="safe").load(file)["topic"] == f"{file.stem}.v1"


def test_topics_joined_by_the_joiner_are_copartitioned() -> None:
    counts = {topic.name: topic.partitions for topic in load_topics(FOLDER)}

    assert counts["behavior-events.v1"] == counts["feature-logs.v1"] == counts["samples.v1"]


def test_copartitioning_is_refused_when_counts_differ(tmp_path: Path) -> None:
    for file in (*FILES, FOLDER / "topic.schema.json"):
        text = file.read_text(encoding="utf-8")
        (tmp_path / file.name).write_text(
            text.replace("partitions: 4", "partitions: 8") if "logs" in file.name else text
        )

    with pytest.raises(TopicError, match="must have as many as"):
        load_topics(tmp_path)


def test_dead_letters_are_there_for_every_topic_that_a_service_reads() -> None:
    names = {topic.name for topic in load_topics(FOLDER)}

    for file in FILES:
        topic = YAML(typ="safe").load(file)
        read_by_us = set(topic["consumers"]) & SERVICES
        assert not read_by_us or f"{topic['topic']}.dlq" in names, topic["topic"]


def test_no_topic_is_defined_twice() -> None:
    names = [topic.name for topic in load_topics(FOLDER)]

    assert not [pair for pair in combinations(names, 2) if pair[0] == pair[1]]
