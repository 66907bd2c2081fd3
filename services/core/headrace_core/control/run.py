"""`headrace-run RUN_ID`: claims a run, runs its command, and tells how it ended.

The command finds HEADRACE_RUN (the run's id) and HEADRACE_RUN_TOKEN in its environment. The last line of its standard output
that is a JSON object is the run's result. When it fails, the last line of its standard error is the run's error, or that of its
standard output where it wrote none. Both are passed on as they come. Exit codes: 0 when the run was done or was another's, 1
when the command failed, 3 when the control plane stayed away.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import psutil

from headrace_core.control.client import ControlAwayError, ControlClient, ControlError
from headrace_core.settings import ControlSettings

EXIT_FAILED, EXIT_USAGE, EXIT_AWAY = 1, 2, 3
_HEARTBEAT_SECONDS: Final = 2.0
#: How long a command that was told to stop may take.
_GRACE_SECONDS: Final = 10.0
#: The end of a run is told for so long: it is worth more than the work of another attempt.
_PATIENCE_SECONDS: Final = 600.0
#: So much of a line of output is looked at.
_LINE_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16
#: Once the command has ended, its standard error is read for so long: a process that it left behind may hold it open.
_LAST_WORDS_SECONDS: Final = 1.0
_ERROR_CHARACTERS: Final = 2_000
_SET_PDEATHSIG: Final = 1


class _Work:
    """A command at work.

    Attributes:
        stopped: why it was told to stop; empty if it was not.
        said: last line of its standard error.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.stopped = ""
        self.said = ""

    def stop(self, why: str) -> None:
        """End it, gently at first."""
        if self.stopped or self.process.returncode is not None:
            return
        self.stopped = why
        self._send(signal.SIGTERM)
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._send, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: headrace-run RUN_ID\n")
        sys.exit(EXIT_USAGE)
    try:
        sys.exit(asyncio.run(execute(sys.argv[1], ControlSettings().control)))
    except ControlError as error:
        sys.stderr.write(f"headrace-run: {error}\n")
        sys.exit(EXIT_AWAY if isinstance(error, ControlAwayError) else EXIT_FAILED)


async def execute(run_id: str, url: str) -> int:
    """Do a run; the exit code."""
    host = socket.gethostname()
    me = {"host": host, "pid": os.getpid(), "pid_started": psutil.Process().create_time()}
    async with ControlClient(url, "headrace-run", _PATIENCE_SECONDS) as client:
        token = await client.claim(run_id, f"{host}:{os.getpid()}", process=me)
        if token is None:
            sys.stderr.write(f"headrace-run: {run_id} was claimed by another or is over\n")
            return 0
        run = await client.run(run_id)
        status, result, error = await _work(client, run_id, token, run.command)
        try:
            await client.finish(run_id, token, status, result=result, error=error)
        except ControlError as refused:
            sys.stderr.write(f"headrace-run: {run_id} no longer counts: {refused}\n")
            return EXIT_FAILED
    return 0 if status == "SUCCEEDED" else EXIT_FAILED


async def _work(
    client: ControlClient, run_id: str, token: str, command: Sequence[str]
) -> tuple[str, dict[str, Any], str]:
    """Status, result and error of the command."""
    # Commands of the platform are beside this interpreter, whose folder need not be on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    reading, writing = os.pipe()  # not the process's own, whose end is told only when nobody holds its pipes any more
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=writing, start_new_session=True,
            preexec_fn=_die_with_parent,
            env=os.environ | {"PATH": path, "HEADRACE_RUN": run_id, "HEADRACE_RUN_TOKEN": token},
        )  # fmt: skip
    except OSError as error:
        os.close(reading)
        return "FAILED", {}, f"{command[0]}: {error.strerror}"
    finally:
        os.close(writing)
    work = _Work(process)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.stop, f"stopped by {number.name}")
    beats = asyncio.create_task(_beat(client, run_id, token, work))
    errors = asyncio.create_task(_read_errors(reading, work))
    try:
        result, last = await _read(process)
        code = await process.wait()
        await asyncio.wait({errors}, timeout=_LAST_WORDS_SECONDS)
    finally:
        for task in (beats, errors):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if code == 0 and not work.stopped:
        return "SUCCEEDED", result, ""
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    why = work.said or last
    return "FAILED", result, work.stopped or (f"{how}: {why}" if why else how)[:_ERROR_CHARACTERS]


async def _read(process: Process) -> tuple[dict[str, Any], str]:
    """Pass standard output on; its last JSON object, and its last line."""
    assert process.stdout is not None  # noqa: S101  # it was asked for
    result: dict[str, Any] = {}
    last = ""
    async for last in _lines(process.stdout, sys.stdout.buffer):
        if last.startswith("{"):
            with contextlib.suppress(ValueError):
                told = json.loads(last)
                result = told if isinstance(told, dict) else result
    return result, last


async def _read_errors(pipe: int, work: _Work) -> None:
    """Pass standard error on; its last line is what the work said."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", 0)
    )
    try:
        async for work.said in _lines(stream, sys.stderr.buffer):
            pass
    finally:
        transport.close()


async def _lines(stream: asyncio.StreamReader, out: BinaryIO) -> AsyncIterator[str]:
    """Pass a stream on as it comes; its lines that are not empty, the beginning of those that are too long."""
    line = bytearray()
    while chunk := await stream.read(_CHUNK_BYTES):
        # A log whose disk is full ends no reading: the command would wait for its pipe.
        with contextlib.suppress(OSError):
            out.write(chunk)
            out.flush()
        *ended, begun = re.split(rb"[\r\n]", chunk)  # a progress bar writes over its line
        for part in ended:
            line += part[: _LINE_BYTES - len(line)]
            if text := line.decode(errors="replace").strip():
                yield text
            line.clear()
        line += begun[: _LINE_BYTES - len(line)]
    if text := line.decode(errors="replace").strip():
        yield text


async def _beat(client: ControlClient, run_id: str, token: str, work: _Work) -> None:
    """Say that the run lives; end it when it should stop or no longer counts."""
    while True:
        await asyncio.sleep(_HEARTBEAT_SECONDS)
        try:
            if await client.heartbeat(run_id, token):
                work.stop("told to stop")
        except ControlAwayError:
            continue  # the work goes on; the end of it is told later
        except ControlError as error:
            work.stop(str(error))
            return


def _die_with_parent() -> None:
    """In the child: the command is killed when this process is, so that no work goes on that counts for nothing."""
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
