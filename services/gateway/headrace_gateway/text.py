"""Types of what callers send, shared by the routes.

A NUL character is refused everywhere: PostgreSQL's text and jsonb can't hold one, so a single such id would stop a stream
worker at its checkpoint.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

_MAX_INT64: Final = 2**63 - 1

#: No control character up to the very end; `$` would let a last newline pass in Python, though not in JSON Schema.
_PLAIN: Final = "^[^\\x00-\\x1f\\x7f]*(?![\\s\\S])"

#: An id: not empty, at most 256 characters, none of them a control character.
Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, pattern=_PLAIN)]

#: An id that may be left out.
MaybeId: TypeAlias = Annotated[str, Meta(max_length=256, pattern=_PLAIN)]

#: A word such as a category or a page: at most 256 characters, may be empty.
Word: TypeAlias = Annotated[str, Meta(max_length=256)]

#: A longer text.
Text: TypeAlias = Annotated[str, Meta(max_length=4_096)]

#: Milliseconds since the epoch.
Time: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_INT64)]

#: A number that counts.
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_INT64)]

#: A place in a list, from 0.
Place: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]

#: A flat map of words.
Words: TypeAlias = Annotated[dict[Word, Text], Meta(max_length=100)]

#: A flat map whose values may be written as JSON's own scalars.
Scalars: TypeAlias = Annotated[dict[Word, Text | bool | int | float], Meta(max_length=100)]


def as_text(value: str | float) -> str:
    """A scalar as the catalogs keep it: true, 3, 0.5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def has_nul(value: object) -> bool:
    """Whether a NUL character is anywhere in a decoded JSON value."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(has_nul(k) or has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(has_nul(v) for v in value)
