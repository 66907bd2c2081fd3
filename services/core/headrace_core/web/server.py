"""uvicorn as the services run it."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def patient_for(seconds: float) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP, that waits no longer than this for the head of a request.

    uvicorn itself waits for ever on a connection that says nothing, or says its headers byte by byte: whoever opens many such
    takes every file descriptor. Between two requests of one connection it has a limit of its own.
    """

    class Patient(HttpToolsProtocol):
        _begun = False
        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._limit = self.loop.call_later(seconds, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._begun = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._begun = False
            self._forget()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # A head that came whole needs no timer.
            if self._begun and self._limit is None:
                self._limit = self.loop.call_later(seconds, self._too_slow)

        def _forget(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _too_slow(self) -> None:
            self._limit = None
            self.transport.close()

    return Patient
