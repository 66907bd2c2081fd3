"""Models, as definitions/models/*.yaml tell them: what they read, how they learn, and what they must hold to serve."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import jsonschema
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headrace_core.contracts.actions import Label
from headrace_core.definitions.watch import DefinitionError, Watch

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class ModelError(DefinitionError):
    """A definition is wrong; the message tells file, line and fault."""


@dataclass(frozen=True, slots=True)
class FeaturePath:
    """Where a value is.

    Attributes:
        root: user_id, item_id, page_id, or the part of the features: user, context, item.
        keys: from there on; empty for an id.
        of_each: keys inside each member of the list that `keys` leads to; None where there is no list.
    """

    root: str
    keys: tuple[str, ...] = ()
    of_each: tuple[str, ...] | None = None

    @property
    def of_item(self) -> bool:
        """Whether it differs between the items of a request."""
        return self.root in {"item", "item_id"}

    def __str__(self) -> str:
        """As definitions write it, see `parse_path`."""
        before = ".".join((self.root, *self.keys))
        return before if self.of_each is None else ".".join((f"{before}[]", *self.of_each))


@dataclass(frozen=True, slots=True)
class IdInput:
    """A value that stands for itself.

    Attributes:
        name: of the column.
        path: where the value is.
        table: inputs of the same table share rows.
    """

    name: str
    path: FeaturePath
    table: str


@dataclass(frozen=True, slots=True)
class IdsInput:
    """Values of a list, pooled in the graph.

    Attributes:
        name: of the column.
        path: where the list is, and what is taken of its members.
        table: inputs of the same table share rows.
        length: how many are taken, the newest.
    """

    name: str
    path: FeaturePath
    table: str
    length: int


@dataclass(frozen=True, slots=True)
class NumberInput:
    """A number.

    Attributes:
        name: of the column.
        path: where the value is.
        default: where it is missing or no number.
        transform: what the graph makes of it: none, log (sign · log(1 + |x|)) or logit.
        buckets: upper bounds, each bucket with a row of its own in the graph; empty for none.
    """

    name: str
    path: FeaturePath
    default: float
    transform: str
    buckets: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CrossInput:
    """Two or more ids together, as one id.

    Attributes:
        name: of the column and the table.
        of: names of id inputs.
    """

    name: str
    of: tuple[str, ...]

    @property
    def table(self) -> str:
        """A cross shares its rows with nothing."""
        return self.name


Input: TypeAlias = IdInput | IdsInput | NumberInput | CrossInput


@dataclass(frozen=True, slots=True)
class Architecture:
    """The network.

    Attributes:
        kind: wide_and_deep, dcn_v2 or linear.
        embedding: width of a row.
        cross_layers: of dcn_v2.
        hidden: widths of the deep part's layers.
    """

    kind: str
    embedding: int
    cross_layers: int
    hidden: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """How it learns.

    Attributes:
        batch: samples of a step.
        embedding_rate, dense_rate: Adagrad's learning rates of id rows and of the network.
        linear_rate: FTRL's learning rate of the wide part.
        l1, l2: FTRL's.
        admission: an id gets a row of its own when it was seen so often; before, it has a shared one.
        expiry_ms: a row that was not used for so long (event time) is given back.
        capacity: most rows of a table.
        seed: of all randomness.
        every_ms: an increment is exported so often, if something was learned.
        windows_ms: over which progressive metrics are told.
        held_out: one request in so many is never learned.
        epochs: passes of the base training.
    """

    batch: int
    embedding_rate: float
    dense_rate: float
    linear_rate: float
    l1: float
    l2: float
    admission: int
    expiry_ms: int
    capacity: int
    seed: int
    every_ms: int
    windows_ms: tuple[int, ...]
    held_out: int
    epochs: int


@dataclass(frozen=True, slots=True)
class SliceBy:
    """What samples are told apart by: each value of it is a slice.

    Attributes:
        name: the path in its text form.
        path: where the value is.
    """

    name: str
    path: FeaturePath


@dataclass(frozen=True, slots=True)
class Validation:
    """What a version must hold to serve. A bound that is not told is infinite.

    Attributes:
        min_samples: fewer tell nothing: thresholds of quality then pass with a remark. Also of pairs, and of a slice.
        window_ms: an increment's scores before learning are held against what was served, this far back from the newest.
        slices: what thresholds of change have to hold in, besides in total.
        confidence: of the intervals; a version is rejected when a figure's whole interval is beyond its bound.
        max_logloss, min_auc, min_gauc, min_ndcg: absolute thresholds.
        calibration: least and greatest mean prediction over mean label.
        max_logloss_increase: of the candidate over what serves, on the same samples.
        max_auc_decrease, max_gauc_decrease, max_ndcg_decrease: likewise, of what serves over the candidate.
        score_tolerance: greatest difference between a served score and the trainer's.
    """

    min_samples: int = 200
    window_ms: int = 600_000
    slices: tuple[SliceBy, ...] = ()
    confidence: float = 0.95
    max_logloss: float = math.inf
    min_auc: float = -math.inf
    min_gauc: float = -math.inf
    min_ndcg: float = -math.inf
    calibration: tuple[float, float] = (-math.inf, math.inf)
    max_logloss_increase: float = math.inf
    max_auc_decrease: float = math.inf
    max_gauc_decrease: float = math.inf
    max_ndcg_decrease: float = math.inf
    score_tolerance: float = 1e-5


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Attributes:
        name: of the model; its base is `<name>_base`.
        definition: hash of what it says of inputs and learning. Versions with the same one differ by their samples alone.
        label: bit of the label mask that it predicts.
        inputs: in the order of the file.
        architecture, training, validation: see there.
    """

    name: str
    definition: str
    label: Label
    inputs: tuple[Input, ...]
    architecture: Architecture
    training: Training
    validation: Validation

    @property
    def base_name(self) -> str:
        """Name of the model that batch training makes."""
        return f"{self.name}_base"


def load_models(folder: Path) -> dict[str, Model]:
    """All models of a folder, by name.

    Raises:
        ModelError: a file is wrong.
    """
    models: dict[str, Model] = {}
    for file in sorted(folder.glob("*.yaml")):
        model = load_model(file)
        if model.name in models:
            raise ModelError(f"{file}:1: a second model with the name {model.name}")
        models[model.name] = model
    return models


def model_set_version(models: Mapping[str, Model]) -> str:
    """Names a set of definitions, thresholds included; the same set has the same name everywhere."""
    return hashlib.sha256(repr(sorted(models.items())).encode()).hexdigest()[:8]


def watch_models(folder: Path) -> Watch[dict[str, Model]]:
    """The models of a folder, and what becomes of them.

    Raises:
        ModelError: a file is wrong.
    """
    return Watch("models", folder, load_models, model_set_version)


def load_model(file: Path) -> Model:
    """The model of a file.

    Raises:
        ModelError: the file is wrong.
    """
    schema = json.loads((file.parent / "model.schema.json").read_text(encoding="utf-8"))
    try:
        data: Any = YAML().load(file)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ModelError(f"{file}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}") from error
    plain = json.loads(json.dumps(data))
    for fault in jsonschema.Draft202012Validator(schema).iter_errors(plain):
        raise ModelError(f"{file}:{_line(data, list(fault.absolute_path))}: {fault.message}")
    inputs = {name: input_of(name, told) for name, told in plain["inputs"].items()}
    for name, made in inputs.items():
        if (wrong := _fault(made, inputs)) is not None:
            raise ModelError(f"{file}:{_line(data, ['inputs', name])}: {name}: {wrong}")
    return Model(
        name=plain["model"],
        definition=_hash(plain),
        label=Label[plain["label"].upper()],
        inputs=tuple(inputs.values()),
        architecture=_architecture(plain["architecture"]),
        training=_training(plain["training"]),
        validation=_validation(plain["validation"]),
    )


def parse_path(text: str) -> FeaturePath:
    """A path in its text form: `user_id`, `user.city`, `user.views[].item_id`."""
    before, brackets, after = text.partition("[]")
    root, *keys = before.split(".")
    return FeaturePath(root, tuple(keys), tuple(k for k in after.split(".") if k) if brackets else None)


def input_of(name: str, told: Mapping[str, Any]) -> Input:
    """An input as definitions and manifests tell it."""
    if "id" in told:
        return IdInput(name, parse_path(told["id"]), told.get("table", name))
    if "ids" in told:
        return IdsInput(name, parse_path(told["ids"]), told.get("table", name), told["length"])
    if "cross" in told:
        return CrossInput(name, tuple(told["cross"]))
    return NumberInput(
        name, parse_path(told["number"]), float(told.get("default", 0.0)), told.get("transform", "none"),
        tuple(float(b) for b in told.get("buckets", ())),
    )  # fmt: skip


def told_of(made: Input) -> dict[str, Any]:
    """What `input_of` makes the input from; JSON."""
    if isinstance(made, CrossInput):
        return {"cross": list(made.of)}
    path = str(made.path)
    if isinstance(made, IdInput):
        return {"id": path, "table": made.table}
    if isinstance(made, IdsInput):
        return {"ids": path, "table": made.table, "length": made.length}
    return {"number": path, "default": made.default, "transform": made.transform, "buckets": list(made.buckets)}


def _fault(made: Input, inputs: Mapping[str, Input]) -> str | None:
    """What is wrong with an input that the schema can't tell."""
    if isinstance(made, CrossInput):
        wrong = [other for other in made.of if not isinstance(inputs.get(other), IdInput)]
        return f"crosses id inputs of this model, and {', '.join(wrong)} is none" if wrong else None
    if isinstance(made, IdsInput) != (made.path.of_each is not None):
        return "a list, written with [], is what `ids` reads, and nothing else does"
    if isinstance(made, NumberInput) and list(made.buckets) != sorted(set(made.buckets)):
        return "buckets rise from one to the next"
    if isinstance(made, IdInput | IdsInput) and isinstance(inputs.get(made.table), NumberInput | CrossInput):
        return f"can't share rows with {made.table}, which has no ids of its own"
    return None


def _architecture(told: Mapping[str, Any]) -> Architecture:
    return Architecture(
        told["kind"], told.get("embedding", 16), told.get("cross_layers", 2), tuple(told.get("hidden", (64, 32)))
    )


def _training(told: Mapping[str, Any]) -> Training:
    rates, ids = told.get("rates", {}), told.get("ids", {})
    return Training(
        batch=told.get("batch", 512),
        embedding_rate=rates.get("embedding", 0.1),
        dense_rate=rates.get("dense", 0.02),
        linear_rate=rates.get("linear", 0.2),
        l1=rates.get("l1", 0.0),
        l2=rates.get("l2", 0.0),
        admission=ids.get("admission", 2),
        expiry_ms=duration_ms(ids.get("expiry", "30d")),
        capacity=ids.get("capacity", 1_000_000),
        seed=told.get("seed", 1),
        every_ms=duration_ms(told.get("every", "60s")),
        windows_ms=tuple(duration_ms(w) for w in told.get("windows", ("10m",))),
        held_out=told.get("held_out", 20),
        epochs=told.get("epochs", 1),
    )


def _validation(told: Mapping[str, Any]) -> Validation:
    def bound(name: str, side: str) -> float:
        return float(told.get(name, {}).get(side, math.inf if side == "max" else -math.inf))

    return Validation(
        min_samples=told.get("min_samples", 200),
        window_ms=duration_ms(told.get("window", "10m")),
        slices=tuple(SliceBy(text, parse_path(text)) for text in told.get("slices", ())),
        confidence=told.get("confidence", 0.95),
        max_logloss=bound("logloss", "max"),
        min_auc=bound("auc", "min"),
        min_gauc=bound("gauc", "min"),
        min_ndcg=bound("ndcg", "min"),
        calibration=(bound("calibration", "min"), bound("calibration", "max")),
        max_logloss_increase=bound("logloss_increase", "max"),
        max_auc_decrease=bound("auc_decrease", "max"),
        max_gauc_decrease=bound("gauc_decrease", "max"),
        max_ndcg_decrease=bound("ndcg_decrease", "max"),
        score_tolerance=told.get("score_tolerance", 1e-5),
    )


def _hash(plain: dict[str, Any]) -> str:
    """Of what makes the weights: not of how it is written down or described, nor of what a version must hold afterwards."""
    meaning = {k: v for k, v in plain.items() if k not in {"description", "validation"}}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


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


def duration_ms(text: str) -> int:
    """A duration such as 15s, 10m, 1h or 7d, in ms.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise ValueError(f"not a duration: {text}")
    return int(match[1]) * _UNITS_MS[match[2]]
