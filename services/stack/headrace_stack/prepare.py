"""Fetches what no Python package brings: Kafka's jars, an archive of its classes for a faster start; what tests need.

Run as `python -m headrace_stack.prepare`; `make setup` does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from headrace_stack import helm, prometheus
from headrace_stack.layout import Layout, StackError, cache
from headrace_stack.ports import PortBook
from headrace_stack.stores import kafka

_JRE, _MAVEN, _BROWSER = "default-jre-headless", "maven", "chromium"  # Debian's names
_FIRST_START_SECONDS: Final = 60.0


def missing_tools() -> list[str]:
    """Debian packages that are still wanted: a JRE, and Maven as long as Kafka's jars are not there."""
    wanted = []
    try:
        kafka.find_java()
    except StackError:
        wanted.append(_JRE)
    if shutil.which("mvn") is None and not (cache() / "kafka").is_dir():
        wanted.append(_MAVEN)
    return wanted


def install_tools() -> None:
    """Install a JRE and Maven where that is ours to do, as root on Debian, and there a browser, which only tests need.

    Raises:
        StackError: it is not, or it failed; the message names what to install.
    """
    wanted = missing_tools()
    ours = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if wanted:
        told = f"install {' and '.join(wanted)} (Debian's package names), then run `make setup` again"
        if not ours:
            raise StackError(f"missing: {told}")
        fault = _install(wanted)
        if fault is not None or missing_tools():
            raise StackError(f"apt-get failed ({fault}): {told}")
    if ours and shutil.which(_BROWSER) is None:
        fault = _install([_BROWSER])
        if fault is not None:
            print(f"headrace: no {_BROWSER} ({fault}): tests of the console are left out", file=sys.stderr)


def _install(packages: Sequence[str]) -> str | None:
    """Install Debian's packages; None, or why not."""
    print(f"installing {' and '.join(packages)}", file=sys.stderr)
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *arguments], env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    return " ".join(done.stderr.split())[-300:] if done.returncode else None


def fetch_kafka() -> None:
    """Copy the jars into the cache, whole or not at all.

    Raises:
        StackError: Maven failed.
    """
    target = cache() / "kafka"
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        pom = Path(folder) / "pom.xml"
        shutil.copy(Path(__file__).parent / "kafka" / "pom.xml", pom)
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StackError(f"Maven could not fetch Kafka: {done.stdout.strip()[-500:]}")
        (Path(folder) / "jars").rename(target)


def archive_classes() -> None:
    """Start Kafka once and let the JVM write down the classes it loaded."""
    if kafka.archive().exists():
        return
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        layout = Layout(Path(folder))
        layout.make()
        ports = PortBook(layout.ports, layout.home).choose(["kafka", "kafka-controller"], {})
        command = kafka.part(layout, ports["kafka"], ports["kafka-controller"]).command
        kafka.prepare(layout)
        dump = Path(folder) / "kafka.jsa"
        command.insert(1, f"-XX:ArchiveClassesAtExit={dump}")
        with (Path(folder) / "kafka.log").open("wb") as log:
            process = psutil.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            waited = 0.0
            while process.poll() is None and not kafka.ready(ports["kafka"]) and waited < _FIRST_START_SECONDS:
                psutil.wait_procs([process], timeout=0.2)
                waited += 0.2
            process.terminate()
            process.wait(60)
        if dump.exists():
            dump.rename(kafka.archive())


def main() -> None:
    """Entry point."""
    cache().mkdir(parents=True, exist_ok=True)
    try:
        install_tools()
        fetch_kafka()
        helm.fetch()
        prometheus.fetch()
        archive_classes()
    except StackError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main()
