"""Features, as definitions/features/*.yaml tell them: typed plans with compiled functions."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headrace_core.contracts import BehaviorEvent
from headrace_core.definitions.expressions import ExpressionError, Predicate, compile_key, compile_predicate
from headrace_core.definitions.watch import DefinitionError, Watch

__all__ = [
    "DefinitionError",
    "Feature",
    "Sequence",
    "Top",
    "feature_set_version",
    "load_features",
    "longest_window",
    "watch_features",
]

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_MAX_WINDOW_MS: Final = 24 * _UNITS_MS["h"]
#: Windows up to so long are counted in slices of so long; edges of a window are as coarse.
_TILES: Final = ((60_000, 1_000), (600_000, 10_000), (3_600_000, 60_000), (_MAX_WINDOW_MS, 900_000))


@dataclass(frozen=True, slots=True)
class Sequence:
    """The newest events of a user.

    Attributes:
        fields: columns that each entry holds.
        limit: at most so many, the newest.
    """

    fields: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Top:
    """The best members of a key.

    Attributes:
        member: gives the ranked member of an event.
        by_rate: rank by smoothed rate, else by count.
        k: how many are written.
        denominator: for rates, which events count below the line.
        alpha, beta: Beta prior of a rate: (n + alpha) / (d + alpha + beta).
    """

    member: Callable[[BehaviorEvent], tuple[str, ...] | None]
    by_rate: bool
    k: int
    denominator: Predicate | None
    alpha: float
    beta: float


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature.

    Attributes:
        name: of the feature.
        definition: hash of what it says; a changed definition is another feature with the same name.
        where: which events count; of a rate, those above the line.
        key: values of `by`, None where one of them is NULL.
        window_ms: how far back it looks.
        every_ms: how often a value is written at most.
        tile_ms: length of the slices that are counted; edges of the window are as coarse.
        shape: what is made of the events.
    """

    name: str
    definition: str
    where: Predicate
    key: Callable[[BehaviorEvent], tuple[str, ...] | None]
    window_ms: int
    every_ms: int
    tile_ms: int
    shape: Sequence | Top


def load_features(folder: Path) -> list[Feature]:
    """All features of a folder, by name.

    Raises:
        DefinitionError: a file is wrong.
    """
    schema = json.loads((folder / "feature.schema.json").read_text(encoding="utf-8"))
    features: dict[str, Feature] = {}
    for file in sorted(folder.glob("*.yaml")):
        feature = _load(file, schema)
        if feature.name in features:
            raise DefinitionError(f"{file}:1: a second feature with the name {feature.name}")
        features[feature.name] = feature
    return list(features.values())


def feature_set_version(features: list[Feature]) -> int:
    """A number that names the set of definitions in force; the same set has the same number everywhere."""
    text = ",".join(sorted(f"{f.name}@{f.definition}" for f in features))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def watch_features(folder: Path) -> Watch[list[Feature]]:
    """The features of a folder, and what becomes of them.

    Raises:
        DefinitionError: a file is wrong.
    """
    return Watch("features", folder, load_features, feature_set_version)


def longest_window(tile_ms: int) -> int:
    """The longest window, in ms, that is counted in slices of this length."""
    return next((limit for limit, tile in _TILES if tile == tile_ms), _MAX_WINDOW_MS)


def _load(file: Path, schema: dict[str, Any]) -> Feature:
    try:
        data: Any = YAML().load(file)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DefinitionError(f"{file}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}") from error
    plain = json.loads(json.dumps(data))
    for fault in jsonschema.Draft202012Validator(schema).iter_errors(plain):
        path = list(fault.absolute_path)
        raise DefinitionError(f"{file}:{_line(data, path[0] if path else None)}: {fault.message}")

    def compiled(part: str, compile_: Callable[[], Any]) -> Any:
        try:
            return compile_()
        except ExpressionError as error:
            raise DefinitionError(f"{file}:{_line(data, part)}: {part}: {error}") from error

    window = _duration(plain["window"]["size"])
    if window > _MAX_WINDOW_MS:
        raise DefinitionError(f"{file}:{_line(data, 'window')}: a window is at most 24h; longer ones are made by batch")
    shape: Sequence | Top
    if "sequence" in plain:
        if plain["by"] != ["user_id"]:
            raise DefinitionError(f"{file}:{_line(data, 'by')}: a sequence is by [user_id]")
        shape = Sequence(tuple(plain["sequence"]["fields"]), plain["sequence"].get("limit", 200))
    else:
        top = plain["top"]
        by_rate = top["rank_by"] == "rate"
        if by_rate != ("rate" in plain):
            raise DefinitionError(f"{file}:{_line(data, 'top')}: rank_by: rate needs `rate`, and nothing else does")
        rate = plain.get("rate", {})
        shape = Top(
            compiled("top", lambda: compile_key([top["of"]])),
            by_rate,
            top["k"],
            compiled("rate", lambda: compile_predicate(rate["denominator"])) if by_rate else None,
            rate.get("prior", {}).get("alpha", 1.0),
            rate.get("prior", {}).get("beta", 50.0),
        )
    conditions = [c for c in (plain.get("where"), plain.get("rate", {}).get("numerator")) if c]
    return Feature(
        name=plain["feature"],
        definition=_hash(plain),
        where=compiled(
            "rate" if "rate" in plain else "where",
            lambda: compile_predicate(" AND ".join(f"({c})" for c in conditions) or "TRUE"),
        ),
        key=compiled("by", lambda: compile_key(plain["by"])),
        window_ms=window,
        every_ms=_duration(plain["window"].get("every", "1s")),
        tile_ms=_tile(window),
        shape=shape,
    )


def _tile(window_ms: int) -> int:
    """Slices grow with the window: 1 s up to 1 min, 10 s up to 10 min, 1 min up to 1 h, 15 min up to 24 h."""
    return next(tile for limit, tile in _TILES if window_ms <= limit)


def _hash(plain: dict[str, Any]) -> str:
    """Of what the definition says, not of how it is written down or described."""
    meaning = {k: v for k, v in plain.items() if k != "description"}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]


def _line(data: Any, key: str | None) -> int:
    try:
        return int(data.lc.data[key][0]) + 1
    except (AttributeError, KeyError):
        return 1


def _duration(text: str) -> int:
    match = re.fullmatch(r"(\d+)([smh])", text)
    if match is None:
        raise ValueError(text)  # the schema holds it
    return int(match[1]) * _UNITS_MS[match[2]]
