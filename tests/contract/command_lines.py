"""Command lines as pages write them: with placeholders, optional parts and alternatives; and whether `headrace` takes one."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import typer
from headrace_stack.__main__ import app
from headrace_stack.commands.terminal import Defaulting
from typer.core import TyperGroup
from typer.exceptions import TyperException

#: What stands for a value, e.g. USER: a value that is good as a text, a number and a file's name.
_PLACEHOLDER: Final = re.compile(r"[A-Z][A-Z_]*")
_VALUE: Final = "1"
_ANY_COMMAND: Final = {"COMMAND": "up"}
_OPTIONAL: Final = re.compile(r"\s*\[[^][]*\]…?")
_MORE: Final = "…"
#: Options of the whole command line that do something when they are parsed.
_OF_SHELLS: Final = {"--install-completion", "--show-completion"}
#: Commands that change nothing, and have an answer on any stack that is up.
_LOOKS: Final = {
    "address", "dlq", "dlq list", "events", "events list", "features list", "logs", "models list", "samples audit", "samples look",
    "status", "why", "workflows list", "workflows runs", "workflows show",
}  # fmt: skip
#: Of these the name alone is a call.
_BARE: Final = {"dlq", "events", "status"}

_HEADRACE: Final[Any] = typer.main.get_command(app)


def simple_commands(text: str) -> Iterator[str]:
    """The commands of a block or a line, one by one: without comments, continued lines in one, apart at `&&` and `|`."""
    for line in text.replace("\\\n", " ").splitlines():
        plain = re.sub(r"(^|\s)#.*", "", line)
        yield from (part.strip() for part in re.split(r"\s(?:&&|\|)\s", plain) if part.strip())


def written_out(text: str) -> Iterator[list[str]]:
    """The command lines that a written one stands for.

    Args:
        text: `[x]` may be left out; `a|b` is one of them; `x…` may be repeated; a word in capitals is a value; a `…` of its own
            is whatever the command takes, or the value of the option before it.
    """
    without, with_all = _OPTIONAL.sub("", text), re.sub(r"[\[\]]", "", text)
    for variant in dict.fromkeys((without, with_all)):
        words = [word if word == _MORE else word.rstrip(_MORE) for word in shlex.split(variant)]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        for chosen in product(*(_alternatives(word) for word in words)):
            yield [_filled(word) for word in chosen]


def _filled(word: str) -> str:
    return _ANY_COMMAND.get(word, _VALUE) if _PLACEHOLDER.fullmatch(word) else word


def _alternatives(word: str) -> Sequence[str]:
    return word.split("|") if re.fullmatch(r"[\w|.-]+", word) else [word]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `headrace`, looked at.

    Attributes:
        command: names from the outermost group on, e.g. ("samples", "changes"); the default of a group stands for itself.
        fault: why it is not taken; None when it is.
    """

    command: tuple[str, ...]
    fault: str | None = None


def parsed(words: Sequence[str]) -> Call:
    """What `headrace` makes of the words after its name.

    A command's name alone is a name, not a call, so it may lack what the command needs.
    """
    rest, command = [word for word in words if word != "--help"], tuple[str, ...]()
    group, context = _HEADRACE, typer.Context(_HEADRACE, info_name="headrace")
    if set(rest) & _OF_SHELLS:
        known = {name for parameter in group.get_params(context) for name in parameter.opts}
        return Call((), None if set(rest) <= known else f"no such option: {' '.join(rest)}")
    try:
        while isinstance(group, TyperGroup) and rest and rest != [_MORE]:
            if isinstance(group, Defaulting) and rest[0] not in group.commands:
                rest.insert(0, group.default)
            name, found, rest = group.resolve_command(context, rest)
            command = (*command, str(name))
            if isinstance(found, TyperGroup):
                group, context = found, typer.Context(found, info_name=name, parent=context)
                continue
            if found is not None and rest and rest != [_MORE]:
                found.make_context(name, rest, parent=context)
            break
    except TyperException as error:
        return Call(command, str(getattr(error, "format_message", error.__str__)()))
    return Call(command)


def only_looks(text: str) -> bool:
    """Whether a written command line can be typed as it stands, on any stack, and changes nothing."""
    program, *words = text.split() or [""]
    if program != "headrace" or re.search(r"[][…|\"']", text) or any(_PLACEHOLDER.fullmatch(word) for word in words):
        return False
    command = " ".join(parsed(words).command)
    return command in _LOOKS and (words != [command] or command in _BARE)
