"""What callers send, checked before anything is done with it."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_CONTEXT_BYTES = 262_144


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be Unicode without lone surrogates") from None
    return text


def _storable_object(value: dict[str, Any]) -> dict[str, Any]:
    try:
        written = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"can't be stored: {error}") from None
    if rb"\u0000" in written:
        raise ValueError("must not hold the character NUL")
    if len(written) > _CONTEXT_BYTES:
        raise ValueError(f"must be at most {_CONTEXT_BYTES} bytes of JSON")
    return value


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, Field(min_length=1, max_length=500)]
Object = Annotated[dict[str, Any], AfterValidator(_storable_object)]
Version = Annotated[int, Field(ge=1, le=2**62)]
Stage = Literal["GENERATED", "VALIDATED", "REJECTED", "DEPLOYED", "DEPRECATED", "DELETED"]


class Body(BaseModel):
    """A body that knows its fields."""

    model_config = ConfigDict(extra="forbid")


class EventIn(Body):
    """An event to append."""

    key: Name = Field(examples=["ctr"])
    value: Annotated[Text, Field(max_length=100_000)] = Field(examples=["17"])
    type: Annotated[Text, Field(max_length=200)] = ""
    namespace: Annotated[Text, Field(max_length=200)] = "default"
    sender: Annotated[Text, Field(max_length=200)] = ""
    sequence: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None,
        description="The sender's own number of it; sent again, it is answered with the first one's offset.",
    )
    context: Object = Field(default_factory=dict)


class ParentIn(Body):
    """The version that another one stands on."""

    model: Name
    version: Version


class VersionIn(Body):
    """A version to register."""

    version: Version
    artifact: Annotated[Text, Field(min_length=1, max_length=2_000)]
    parent: ParentIn | None = None
    manifest: Object = Field(default_factory=dict)
    metrics: dict[Name, float | None] = Field(default_factory=dict)
    run: Text | None = None


class StageIn(Body):
    """A step to another stage."""

    stage: Stage
    by: Annotated[Text, Field(max_length=200)]
    why: Annotated[Text, Field(max_length=10_000)]
    details: Object = Field(default_factory=dict)
    track: Annotated[Text, Field(min_length=1, max_length=100)] = "stable"
    run: Text | None = None


class MetricIn(Body):
    """A value of a metric at a time."""

    name: Annotated[Text, Field(min_length=1, max_length=200)]
    value: float | None = Field(description="null for one that is no number.")
    time: Annotated[int, Field(ge=0, lt=2**53)]
    slice: Annotated[Text, Field(max_length=200)] = ""


class MetricsIn(Body):
    """Values of metrics."""

    items: list[MetricIn] = Field(max_length=10_000)


class ClaimIn(Body):
    """Who wants to work on a run."""

    worker: Name
    nonce: Annotated[Text, Field(max_length=200)] | None = Field(
        default=None, description="The same one may ask again, for when the answer was lost."
    )
    host: Annotated[Text, Field(max_length=500)] = ""
    pid: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    pid_started: float | None = None


class TokenIn(Body):
    """Who works on a run."""

    token: Text


class FinishIn(TokenIn):
    """How a run ended."""

    status: Literal["SUCCEEDED", "FAILED"]
    result: Object = Field(default_factory=dict)
    error: Annotated[Text, Field(max_length=100_000)] = ""


class StartIn(Body):
    """What a start by hand is told."""

    event: int | None = Field(default=None, description="Offset of the event whose fields the command takes.")
