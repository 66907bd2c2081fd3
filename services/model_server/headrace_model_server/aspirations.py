"""What the server is to serve in all: what it was told by calls, and beside it the version that is deployed.

A deployer tells the servers that it sees. One that comes up meanwhile, or comes without what it kept, sees to the deployed version
itself; and since a configuration is told as a whole, by somebody who may not know of that version yet, none takes it away.
"""

import logging
import threading
import time
from typing import Final

from headrace_core.serving.messages import ModelServerConfig, ModelSpec, VersionNumber, VersionState

from headrace_model_server.aspired import StateFile, aspired_models, with_version, without_older
from headrace_model_server.errors import InvalidError, NotServedError
from headrace_model_server.library import Library

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0
#: So often a deployed version is tried before the server is ready without it: if nobody can load it, a better one has to be
#: validated and deployed, and that needs a server.
_TRIES: Final = 5


class Aspirations:
    """Tells a library what to serve, and keeps it for the next start.

    Args:
        library: that loads.
        state: what was served before, and from now on.
        model: whose deployed version is served beside what is told; empty for none.
        base_path: folder or URL of that model's versions.
    """

    def __init__(self, library: Library, state: StateFile, model: str = "", base_path: str = "") -> None:
        self._library, self._state, self._model, self._base_path = library, state, model, base_path
        self._lock = threading.Lock()
        self._deployed: int | None = None
        self._begun = False
        self._tries = 1
        self._tried = 0.0
        try:
            self._config = state.read()
            aspired_models(self._config)
        except InvalidError:
            log.exception("what was served before is not known, nothing is loaded")
            self._config = ModelServerConfig()

    @property
    def known(self) -> bool:
        """Whether anything was served before."""
        return bool(self._config.model_config_list.config)

    def begin(self) -> None:
        """Serve what was served before, and what is deployed as far as it is known by now."""
        with self._lock:
            self._begun = True
            if self._deployed is not None:
                # Of the versions that were deployed while this server was away nobody asks for the older ones.
                self._config = without_older(self._config, self._model, self._deployed)
            self._aspire(self._config)

    def told(self, config: ModelServerConfig) -> None:
        """Serve this from now on.

        Raises:
            InvalidError: it says something that can't be.
        """
        with self._lock:
            self._aspire(config)

    def deployed(self, version: int | None) -> None:
        """The version is deployed from now on, or none is."""
        with self._lock:
            if version == self._deployed:
                return
            self._deployed, self._tries, self._tried = version, 1, time.monotonic()
            if self._begun and self._with_deployed(self._config) != self._config:
                log.info("what is deployed is loaded untold", extra={"fields": self._named()})
                self._aspire(self._config)

    def lacks(self) -> str | None:
        """What is deployed and not served, with the reason; None if nothing is. What failed is tried again by and by."""
        with self._lock:
            if self._deployed is None:
                return None
            spec = ModelSpec(name=self._model, version=VersionNumber(value=self._deployed))
            try:
                (version,) = self._library.versions(spec)
            except NotServedError as error:
                return str(error)
            if version.state == VersionState.VERSION_STATE_AVAILABLE:
                return None
            if version.state == VersionState.VERSION_STATE_END and time.monotonic() >= self._tried + _RETRY_SECONDS:
                self._tries, self._tried = self._tries + 1, time.monotonic()
                self._library.aspire(aspired_models(self._config))
            return f"{self._model} {self._deployed}, which is deployed: {version.error or 'being loaded'}"

    @property
    def hopeless(self) -> bool:
        """Whether the deployed version was tried often enough to be ready without it."""
        return self._tries > _TRIES

    def _aspire(self, config: ModelServerConfig) -> None:
        whole = self._with_deployed(config)
        self._library.aspire(aspired_models(whole))
        self._state.write(whole)
        self._config = whole

    def _with_deployed(self, config: ModelServerConfig) -> ModelServerConfig:
        if self._deployed is None:
            return config
        return with_version(config, self._model, self._deployed, self._base_path)

    def _named(self) -> dict[str, object]:
        return {"model": self._model, "version": self._deployed}
