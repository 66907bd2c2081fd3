"""Reads the services' Prometheus pages."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from headrace_control_plane.console.rates import Page, Window

_PREFIX: Final = "headrace_"
_ANSWER_SECONDS: Final = 1.5
_REMEMBERED_SECONDS: Final = 600.0


class TargetsError(Exception):
    """The setting console_targets names nothing that can be read; the message tells why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A process.

    Attributes:
        name: unique, e.g. sample-joiner-0.
        service: what it is.
        url: of its Prometheus page; empty for one that has none.
        pid: when it is known.
    """

    name: str
    service: str
    url: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at a target.

    Attributes:
        fault: why it told nothing; None if it did, or has nothing to tell.
    """

    target: Target
    fault: str | None


def targets_of(setting: str) -> list[Target]:
    """What the setting names: a path to stack.json, or URLs separated by commas, each perhaps as service=URL.

    Raises:
        TargetsError: the file is not there or is none.
    """
    setting = setting.strip()
    if not setting:
        return []
    if "://" in setting:
        return _from_urls([part.strip() for part in setting.split(",") if part.strip()])
    try:
        return from_stack(json.loads(Path(setting).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TargetsError(f"no stack is up: there is no {setting}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetsError(f"{setting} can't be read: {error!r}") from error


def from_stack(content: Mapping[str, Any]) -> list[Target]:
    """Processes that stack.json tells."""
    return [
        Target(f"{p['service']}-{p['replica']}", p["service"], _page_of(p.get("metrics") or ""), p.get("pid"))
        for p in content["processes"]
    ]


def _from_urls(parts: Sequence[str]) -> list[Target]:
    """Without a name, the first label of the host is the service's: http://sample-joiner.headrace.svc:9100."""
    found: list[Target] = []
    counts: dict[str, int] = {}
    for part in parts:
        head, sign, tail = part.partition("=")
        named = bool(sign) and "://" not in head
        url = tail if named else part
        service = head if named else (urlsplit(url).hostname or url).split(".")[0]
        replica = counts[service] = counts.get(service, -1) + 1
        found.append(Target(f"{service}-{replica}", service, _page_of(url)))
    return found


def _page_of(url: str) -> str:
    return f"{url.rstrip('/')}/metrics" if url and urlsplit(url).path.strip("/") == "" else url


def with_gone(seen: dict[str, tuple[Target, float]], targets: Sequence[Target], now: float) -> list[Target]:
    """The targets, and those that were there a while ago: stack.json names only processes that run.

    Args:
        seen: each target that was there, and when; brought up to date.
        targets: those that are there.
        now: seconds of any clock that only goes on.
    """
    seen.update((target.name, (target, now)) for target in targets)
    for name in [name for name, (_, at) in seen.items() if now - at > _REMEMBERED_SECONDS]:
        del seen[name]
    there = {target.name for target in targets}
    return [target if name in there else replace(target, url="", pid=None) for name, (target, _) in seen.items()]


def parse(text: str) -> Page:
    """Samples of the platform's own metrics; those of Python and of the process are left out before they cost time."""
    own = "\n".join(line for line in text.splitlines() if line.removeprefix("# TYPE ").startswith(_PREFIX))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(own + "\n")
        for sample in family.samples
    }


@dataclass(slots=True)
class Scraper:
    """Looks at the targets when it is asked to, at most every `every` seconds however many ask.

    Attributes:
        setting: which targets.
        window: what they told in the last minutes.
        looks: what was found last.
        fault: why there are no targets.
    """

    setting: str
    every: float = 2.0
    window: Window = field(default_factory=Window)
    looks: list[Look] = field(default_factory=list)
    fault: str | None = None
    _looked_at: float = float("-inf")
    _seen: dict[str, tuple[Target, float]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _http: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=_ANSWER_SECONDS, follow_redirects=True)
    )

    async def look(self) -> None:
        """Bring the window and the looks up to date."""
        async with self._lock:
            if time.monotonic() - self._looked_at < 0.9 * self.every:
                return
            try:
                targets = await asyncio.to_thread(targets_of, self.setting)
                self.fault = None if targets else "no services are named to the console (HEADRACE_CONSOLE_TARGETS)"
            except TargetsError as error:
                targets, self.fault = [], str(error)
            targets = with_gone(self._seen, targets, time.monotonic())
            told = await asyncio.gather(*(self._read(target) for target in targets))
            self._looked_at = time.monotonic()
            self.looks = [
                Look(t, page if isinstance(page, str) else None) for t, page in zip(targets, told, strict=True)
            ]
            self.window.forget(self.window.known - {target.name for target in targets if target.url})
            pages = {
                t.name: (t.service, page)
                for t, page in zip(targets, told, strict=True)
                if t.url and not isinstance(page, str)
            }
            self.window.add(self._looked_at, pages)

    async def _read(self, target: Target) -> Page | str:
        if not target.url:
            return {} if target.pid is not None else "its process is gone"
        try:
            answer = await self._http.get(target.url)
            answer.raise_for_status()
            return parse(answer.text)
        except httpx.HTTPStatusError as error:
            return f"answers {error.response.status_code}"
        except httpx.TimeoutException:
            return f"no answer within {_ANSWER_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        except (ValueError, KeyError) as error:
            return f"its page is not understood: {error}"

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()
