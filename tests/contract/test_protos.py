"""The wire contract: lint, no breaking change, generated code, conventions and examples."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from headrace_core import contracts  # noqa: F401  # registers every message
from headrace_core.serving import messages as serving  # noqa: F401  # and those of serving
from headrace_stack.protos import generate

ROOT = Path(__file__).resolve().parents[2]
#: Written down as others defined them.
FOREIGN = {"headrace.tfserving.v1"}
GENERATED = ROOT / "services" / "core" / "headrace_core" / "_generated"
EXAMPLES = sorted((ROOT / "tests" / "contract" / "examples").glob("*.json"))
BUF = Path(sys.executable).parent / "buf"


def buf(*arguments: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([BUF, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """The protos with their comments."""
    image = tmp_path_factory.mktemp("image") / "image.binpb"
    done = buf("build", "-o", str(image))
    assert done.returncode == 0, done.stderr
    return list(FileDescriptorSet.FromString(image.read_bytes()).file)


def ours(files: list[FileDescriptorProto]) -> list[FileDescriptorProto]:
    return [file for file in files if file.package not in FOREIGN]


def messages(files: list[FileDescriptorProto]) -> Iterator[tuple[DescriptorProto, dict[int, str]]]:
    """Each message of ours with the comments of its fields, by index."""
    for file in ours(files):
        comments = {tuple(loc.path): loc.leading_comments for loc in file.source_code_info.location}
        for n, message in enumerate(file.message_type):
            yield message, {i: comments.get((4, n, 2, i), "") for i in range(len(message.field))}


def an_example(file: Path) -> Message:
    message = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(file.stem))()
    json_format.Parse(file.read_text(encoding="utf-8"), message)
    return message


def test_buf_lint_finds_nothing() -> None:
    done = buf("lint")

    assert (done.returncode, done.stdout) == (0, "")


def test_nothing_breaks_those_who_know_the_baseline() -> None:
    done = buf("breaking", "--against", "protos/baseline.binpb")

    assert (done.returncode, done.stdout) == (0, "")


def test_breaking_change_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    events = tmp_path / "protos" / "headrace" / "events" / "v1" / "events.proto"
    events.write_text(events.read_text(encoding="utf-8").replace("int64 event_time = 3", "string event_time = 3"))

    done = buf("breaking", "--against", "protos/baseline.binpb", folder=tmp_path)

    assert done.returncode != 0
    assert "event_time" in done.stdout


def test_generated_code_is_what_protoc_makes(tmp_path: Path) -> None:
    generate(tmp_path)

    def content(folder: Path) -> dict[str, str]:
        files = (p for p in folder.rglob("*.py*") if "__pycache__" not in p.parts)
        return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in files}

    assert content(tmp_path) == content(GENERATED), "run `make protos`"


def test_times_are_integers_and_say_their_unit(files: list[FileDescriptorProto]) -> None:
    found = 0
    for message, comments in messages(files):
        for n, field in enumerate(message.field):
            if field.name.endswith(("_time", "_at", "_start")) or field.name == "watermark":
                found += 1
                assert field.type == FieldDescriptorProto.TYPE_INT64, f"{message.name}.{field.name}"
                assert "ms since the epoch" in comments[n], f"{message.name}.{field.name}"
    assert found > 10


def test_ids_are_strings_and_versions_integers(files: list[FileDescriptorProto]) -> None:
    integers = {FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_UINT32}
    for message, _ in messages(files):
        for field in message.field:
            if field.name.endswith("_id"):
                assert field.type == FieldDescriptorProto.TYPE_STRING, f"{message.name}.{field.name}"
            if field.name.endswith("version") and not field.type_name.endswith(".VersionNumber"):
                assert field.type in integers, f"{message.name}.{field.name}"


def test_every_field_has_a_comment_that_ends(files: list[FileDescriptorProto]) -> None:
    for message, comments in messages(files):
        for n, field in enumerate(message.field):
            assert comments[n].strip().endswith((".", "…")), f"{message.name}.{field.name}"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.stem)
def test_example_parses_and_survives_the_wire(file: Path) -> None:
    message = an_example(file)

    again = type(message).FromString(message.SerializeToString())

    assert again == message


def test_examples_set_every_field_of_every_message(files: list[FileDescriptorProto]) -> None:
    shown: set[str] = set()

    def look(message: Message) -> None:
        for field, value in message.ListFields():
            shown.add(field.full_name)
            for part in value if field.is_repeated else [value]:
                if isinstance(part, Message):
                    look(part)

    for file in EXAMPLES:
        look(an_example(file))

    every = {
        f"{file.package}.{m.name}.{field.name}" for file in ours(files) for m in file.message_type for field in m.field
    }
    assert every - shown == set()
