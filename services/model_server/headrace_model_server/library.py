"""The versions that are loaded: who asks for one holds it until he is done, and one thread loads and unloads.

A request takes a version by `held` and answers from its slot alone. A version leaves in two steps, no new requests and then none
left, before its slot gets other variables; so an answer is always from the version that it names.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from headrace_core.serving.messages import ModelSpec, VersionState
from prometheus_client import Gauge

from headrace_model_server.artifact import drop_copy, fetch
from headrace_model_server.aspired import AspiredModel
from headrace_model_server.errors import InvalidError, NotServedError, ServeError
from headrace_model_server.graph import Slot
from headrace_model_server.slots import SlotPool

log = logging.getLogger(__name__)

_LOADED: Final = Gauge("headrace_model_server_versions", "Versions that are served.", ["model"])
_FOLDER_POLL_SECONDS: Final = 1.0
#: Ended versions that are remembered with their reason, per model.
_MAX_ENDED: Final = 20


@dataclass(slots=True, eq=False)
class Loaded:
    """A folder's version in a slot; several model names may stand for it.

    Attributes:
        users: versions that stand on it.
        in_flight: requests that use it.
    """

    folder: Path
    slot: Slot
    users: int = 0
    in_flight: int = 0


@dataclass(slots=True, eq=False)
class Version:
    """One version of one model.

    Attributes:
        state: where in its life it is.
        code: of the error that ended it; 0 for none.
        error: in words.
        loaded: what answers, while it is available.
    """

    number: int
    state: VersionState = VersionState.VERSION_STATE_START
    code: int = 0
    error: str = ""
    loaded: Loaded | None = None


@dataclass(slots=True, eq=False)
class _Model:
    aspired: AspiredModel
    versions: dict[int, Version] = field(default_factory=dict)

    def available(self) -> list[int]:
        return [n for n, v in self.versions.items() if v.state == VersionState.VERSION_STATE_AVAILABLE]

    def told(self, version: Version) -> VersionState:
        """What is said of a version: once the model is not wanted at all it goes, be it still loaded, lest it is taken for kept."""
        if self.aspired.versions == () and version.state != VersionState.VERSION_STATE_END:
            return VersionState.VERSION_STATE_UNLOADING
        return version.state


class Library:
    """Loads what is aspired, and lends it.

    Args:
        cache: folder for copies of artifacts that are not on a disk.
        drain_seconds: how long unloading waits for requests.
    """

    def __init__(self, cache: Path, drain_seconds: float) -> None:
        self._cache, self._drain = cache, drain_seconds
        self._pool = SlotPool()
        self._changed = threading.Condition()
        self._models: dict[str, _Model] = {}
        self._loaded: dict[Path, Loaded] = {}
        self._generation = 0
        self._settled = -1
        self._stopping = False
        self._loader = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        """Load in the background from now on."""
        self._loader.start()

    def stop(self) -> None:
        """Load nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._loader.join()

    def aspire(self, wanted: Mapping[str, AspiredModel]) -> None:
        """Serve these from now on, and nothing else; what failed before is tried again.

        Raises:
            InvalidError: a label would move to a version that is not loaded.
        """
        with self._changed:
            for name, aspired in wanted.items():
                self._check_labels(name, aspired)
            for name, aspired in wanted.items():
                model = self._models.setdefault(name, _Model(aspired))
                model.aspired = aspired
                for number in aspired.versions or ():
                    version = model.versions.get(number)
                    if version is None or version.state == VersionState.VERSION_STATE_END:
                        model.versions[number] = Version(number)
            for name, model in self._models.items():
                if name not in wanted:
                    model.aspired = AspiredModel(model.aspired.base_path, ())
            self._generation += 1
            self._changed.notify_all()

    def _check_labels(self, name: str, aspired: AspiredModel) -> None:
        model = self._models.get(name)
        if model is None or not aspired.labels:
            return  # of a model that comes anew labels count once their versions are there
        available = model.available()
        for label, number in aspired.labels.items():
            if number not in available and model.aspired.labels.get(label) != number:
                raise InvalidError(f"{name}: the label {label} can't move to version {number} before it is available")

    def wait_settled(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything that was aspired by now is loaded or has failed; whether it came to that in time."""
        with self._changed:
            wanted = self._generation
            return self._changed.wait_for(lambda: self._settled >= wanted or self._stopping, timeout_seconds)

    @contextlib.contextmanager
    def held(self, spec: ModelSpec) -> Iterator[tuple[int, Slot]]:
        """A version to answer from: (its number, its slot); it stays as it is until given back.

        Raises:
            NotServedError: it is not available.
        """
        with self._changed:
            version = self._find(spec)
            loaded = version.loaded
            assert loaded is not None  # noqa: S101  # an available version has one
            loaded.in_flight += 1
        try:
            yield version.number, loaded.slot
        finally:
            with self._changed:
                loaded.in_flight -= 1
                if not loaded.in_flight and not loaded.users:
                    self._changed.notify_all()  # who unloads it waits for this

    def _find(self, spec: ModelSpec) -> Version:
        model = self._models.get(spec.name)
        if model is None:
            raise NotServedError(f"the model {spec.name!r} is not served here")
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            number = spec.version.value
        elif choice == "version_label":
            if spec.version_label not in model.aspired.labels:
                raise NotServedError(f"{spec.name}: there is no label {spec.version_label!r}")
            number = model.aspired.labels[spec.version_label]
        else:
            number = max(model.available(), default=-1)
        version = model.versions.get(number)
        if version is None or version.state != VersionState.VERSION_STATE_AVAILABLE:
            which = "no version" if number < 0 else f"version {number}"
            raise NotServedError(f"{spec.name}: {which} is{' not' if number >= 0 else ''} available")
        return version

    def versions(self, spec: ModelSpec) -> list[Version]:
        """Copies of a model's versions, newest first, or of the one that is told.

        Raises:
            NotServedError: nothing is known of it.
        """
        with self._changed:
            model = self._models.get(spec.name)
            if model is None:
                raise NotServedError(f"the model {spec.name!r} is not served here")
            choice = spec.WhichOneof("version_choice")
            number = spec.version.value if choice == "version" else model.aspired.labels.get(spec.version_label)
            found = [
                Version(v.number, model.told(v), v.code, v.error)
                for v in sorted(model.versions.values(), key=lambda v: -v.number)
                if choice is None or v.number == number
            ]
        if not found:
            raise NotServedError(f"{spec.name}: nothing is known of that version")
        return found

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                seen = self._generation
            self._load_missing()
            self._unload_surplus()
            with self._changed:
                if self._generation == seen:
                    self._settled = seen
                    self._changed.notify_all()
                    polls = any(m.aspired.follows_folder for m in self._models.values())
                    self._changed.wait_for(
                        lambda: self._generation != self._settled or self._stopping,
                        _FOLDER_POLL_SECONDS if polls else None,
                    )

    def _load_missing(self) -> None:
        while (found := self._next_missing()) is not None:
            name, base_path, version = found
            try:
                folder = fetch(base_path, version.number, self._cache)
                loaded = self._loaded.get(folder)
                if loaded is None:
                    loaded = Loaded(folder, self._pool.load(folder))
            except ServeError as error:
                log.warning("a version was refused", extra={"fields": _told(name, version) | {"error": str(error)}})
                self._end(version, error.code.value[0], str(error))
            except Exception as error:  # whatever one artifact does, the others are served on
                log.exception("a version can't be loaded", extra={"fields": _told(name, version)})
                self._end(version, grpc.StatusCode.INTERNAL.value[0], f"{type(error).__name__}: {error}")
            else:
                with self._changed:
                    self._loaded[folder] = loaded
                    loaded.users += 1
                    version.loaded, version.state = loaded, VersionState.VERSION_STATE_AVAILABLE
                    self._count(name)
                    self._changed.notify_all()
                log.info("a version is available", extra={"fields": _told(name, version)})

    def _next_missing(self) -> tuple[str, str, Version] | None:
        with self._changed:
            wanted = {name: model.aspired for name, model in self._models.items()}
        numbers = {name: _numbers(name, aspired) for name, aspired in wanted.items()}
        with self._changed:
            for name, model in self._models.items():
                if self._stopping:
                    return None
                for number in numbers.get(name, ()):
                    version = model.versions.setdefault(number, Version(number))
                    # One that ended without fault was unloaded, and its folder has come back among the newest.
                    gone = version.state == VersionState.VERSION_STATE_END and not version.code
                    if version.state == VersionState.VERSION_STATE_START or gone:
                        version.state = VersionState.VERSION_STATE_LOADING
                        return name, model.aspired.base_path, version
        return None

    def _end(self, version: Version, code: int, error: str) -> None:
        with self._changed:
            version.state, version.code, version.error = VersionState.VERSION_STATE_END, code, error
            self._changed.notify_all()

    def _unload_surplus(self) -> None:
        with self._changed:
            surplus = [
                (name, version) for name, model in self._models.items() for version in self._surplus(name, model)
            ]
        for name, version in surplus:
            self._unload(name, version)
        with self._changed:
            for name in [n for n, m in self._models.items() if m.aspired.versions == () and not m.available()]:
                del self._models[name]
            for model in self._models.values():
                ended = sorted(n for n, v in model.versions.items() if v.state == VersionState.VERSION_STATE_END)
                for number in ended[: max(0, len(ended) - _MAX_ENDED)]:
                    del model.versions[number]

    def _surplus(self, name: str, model: _Model) -> list[Version]:
        numbers = set(_numbers(name, model.aspired))
        available = set(model.available())
        if not numbers & available and (numbers or model.aspired.follows_folder):
            return []  # none of those that are wanted could be loaded: the old ones serve on
        return [model.versions[n] for n in sorted(available - numbers)]

    def _unload(self, name: str, version: Version) -> None:
        with self._changed:
            loaded = version.loaded
            version.state, version.loaded = VersionState.VERSION_STATE_UNLOADING, None
            self._count(name)
            if loaded is None:
                return
            loaded.users -= 1
            if not loaded.users:
                del self._loaded[loaded.folder]
                drained = self._changed.wait_for(lambda: not loaded.in_flight, self._drain)
        if not loaded.users:
            if drained:
                self._pool.give_back(loaded.slot)
            else:
                # Its requests keep it alive until they end; it is not used for another version.
                self._pool.abandon(loaded.slot)
            drop_copy(loaded.folder, self._cache)
        with self._changed:
            version.state = VersionState.VERSION_STATE_END
            self._changed.notify_all()
        log.info("a version is gone", extra={"fields": _told(name, version)})

    def _count(self, name: str) -> None:
        _LOADED.labels(name).set(len(self._models[name].available()) if name in self._models else 0)


def _told(name: str, version: Version) -> dict[str, object]:
    return {"model": name, "version": version.number}


def _numbers(name: str, aspired: AspiredModel) -> tuple[int, ...]:
    try:
        return aspired.numbers()
    except (OSError, ValueError) as error:
        log.warning("a model's folder can't be read", extra={"fields": {"model": name, "error": str(error)}})
        return ()
