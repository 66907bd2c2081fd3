"""Where the parts of the platform are, and calls of their HTTP APIs."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import httpx
from headrace_core.control.bearer import BearerAuth

from headrace_stack.commands.terminal import AwayError, CommandError
from headrace_stack.layout import Layout, StackError, checkout
from headrace_stack.stack import Stack

WORDS: Final = {"gateway": "the gateway", "control": "the control plane", "kafka": "Kafka", "postgres": "PostgreSQL"}
#: Longer than any answer takes; a long poll adds what it asked for.
_TIMEOUT_SECONDS: Final = 30.0
_COMPLETION_SECONDS: Final = 1.0


def described() -> dict[str, Any]:
    """Content of stack.json.

    Raises:
        StackError: no stack runs in the home.
        CommandError: the file is damaged.
    """
    layout = Layout.from_environment()
    try:
        return Stack(layout).describe()
    except json.JSONDecodeError as error:
        raise CommandError(f"{layout.stack_file} is damaged ({error}): `headrace down`, then `headrace up`") from error


def address(part: str) -> str:
    """Address of a part: HEADRACE_<PART> if it is set, else out of stack.json.

    Raises:
        StackError: no stack runs in the home.
        AwayError: the stack runs without it.
    """
    if told := os.environ.get(f"HEADRACE_{part.upper()}"):
        return told
    found = described().get(part)
    if not found:
        raise AwayError(
            f"the stack runs without {WORDS.get(part, part)}: `headrace down`, then `headrace up` starts all of it"
        )
    return str(found)


def definitions() -> Path:
    """Folder of the definitions in force: HEADRACE_DEFINITIONS, the stack's own, or those of the checkout."""
    layout = Layout.from_environment()
    try:
        own = Path(Stack(layout).describe().get("definitions", layout.definitions))
    except (StackError, json.JSONDecodeError):
        own = layout.definitions
    return Path(os.environ.get("HEADRACE_DEFINITIONS") or (own if own.is_dir() else checkout() / "definitions"))


class Api:
    """The HTTP API of one part.

    Args:
        name: in words, for what is said when it does not answer.
        http: bound to its address.
    """

    def __init__(self, name: str, http: httpx.Client) -> None:
        self._name, self._http = name, http

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """The answer, whatever its status.

        Raises:
            AwayError: nobody answered.
        """
        try:
            return self._http.request(method, path, **arguments)
        except httpx.InvalidURL as error:
            raise CommandError(f"{path}: {error}") from error
        except httpx.TransportError as error:
            raise AwayError(
                f"{self._name} at {self._http.base_url} does not answer ({error or type(error).__name__}): "
                "`headrace status` shows what runs"
            ) from error

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The body of a good answer.

        Raises:
            AwayError: nobody answered, or only to say that something is away.
            CommandError: it was refused; the message is the refusal.
        """
        return body_of(self.ask(method, path, **arguments))


def body_of(answer: httpx.Response) -> dict[str, Any]:
    """The body of a good answer.

    Raises:
        AwayError: it says that something is away, or is not the platform's.
        CommandError: it is a refusal; the message is its reason.
    """
    try:
        body: dict[str, Any] = answer.json()
    except ValueError as error:
        raise AwayError(f"{answer.url} answers {answer.status_code} and no JSON: is it another server?") from error
    if answer.is_error:
        refused(answer.status_code, str(body.get("detail", body)))
    return body


def refused(status: int, detail: str) -> NoReturn:
    """End the command as an answer's status asks.

    Raises:
        AwayError: a dependency is away, or too busy.
        CommandError: the request was wrong.
    """
    raise (AwayError if status >= 500 or status == 429 else CommandError)(detail)


@contextmanager
def gateway() -> Iterator[Api]:
    """The gateway's API."""
    with httpx.Client(base_url=address("gateway"), timeout=_TIMEOUT_SECONDS, auth=_key()) as http:
        yield Api(WORDS["gateway"], http)


@contextmanager
def control(timeout_seconds: float = _TIMEOUT_SECONDS) -> Iterator[Api]:
    """The control plane's API, below /api/v1."""
    base = f"{address('control').rstrip('/')}/api/v1"
    with httpx.Client(base_url=base, timeout=timeout_seconds, auth=_key()) as http:
        yield Api(WORDS["control"], http)


def _key() -> BearerAuth:
    try:
        return BearerAuth.from_environment()
    except ValueError as error:
        raise CommandError(str(error)) from error


def segment(value: object) -> str:
    """A value as one segment of a path."""
    return quote(str(value), safe="")


def complete(path: str, field: str, begun: str) -> list[str]:
    """Names that a shell offers for what was begun; none when the platform can't be asked at once."""
    try:
        with control(_COMPLETION_SECONDS) as api:
            items = api.call("GET", path)["items"]
    except Exception:  # noqa: BLE001  # a shell that completes has no place for an error
        return []
    return [name for item in items if (name := str(item[field])).startswith(begun)]
