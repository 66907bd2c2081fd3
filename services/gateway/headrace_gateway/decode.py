"""Request bodies into structs, with errors that name the field."""

import re
from typing import Any, Final, TypeVar

import msgspec

from headrace_gateway.problem import invalid
from headrace_gateway.text import has_nul

T = TypeVar("T")

_AT: Final = re.compile(r"^(?P<what>.*?) - at `(?P<where>.+)`$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)

#: How JSON writes a NUL character; a body without it holds none, since a bare one is no JSON.
_NUL_ESCAPE: Final = b"\\u0000"

_ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


def explain(error: Exception) -> tuple[str | None, str]:
    """(field, what is wrong with it) of an error of msgspec; the field is None when the whole is at fault."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return None, "is not UTF-8"
    if not isinstance(error, msgspec.ValidationError):
        return None, f"is not JSON: {text}"
    where = ""
    if match := _AT.match(text):
        text, where = match["what"], match["where"].removeprefix("$").removeprefix(".")
    if match := _UNKNOWN.match(text):
        return _join(where, match["field"]), "is not known"
    if match := _MISSING.match(text):
        return _join(where, match["field"]), "is required"
    if "matching regex" in text:
        return where or None, "holds a control character"
    return where or None, text[:1].lower() + text[1:]


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def reason(error: Exception, whole: str) -> str:
    """One line that names the field, or `whole` when the whole is at fault."""
    field, what = explain(error)
    return f"{field or whole}: {what}"


def may_hold_nul(body: bytes) -> bool:
    """Whether a closer look for NUL characters is needed."""
    return _NUL_ESCAPE in body


def holds_nul(body: bytes) -> bool:
    """Whether a JSON text holds a NUL character in any of its strings.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    return may_hold_nul(body) and has_nul(_ANY.decode(body))


def decode_body(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """The body as a struct.

    Raises:
        ProblemError: 422, naming the field.
    """
    try:
        value = decoder.decode(body)
        nul = holds_nul(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        field, what = explain(error)
        raise invalid(f"{field or 'body'}: {what}", field=field) from None
    if nul:
        raise invalid("body: holds a NUL character, which can't be stored")
    return value
