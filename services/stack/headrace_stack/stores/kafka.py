"""Apache Kafka: one KRaft node, its jars from `make setup`."""

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import uuid
from pathlib import Path
from typing import Final

from headrace_stack.layout import Layout, StackError, cache
from headrace_stack.part import LOOPBACK, Part

_OLDEST_JAVA: Final = 17
_API_VERSIONS: Final = 18


def find_java() -> str:
    """Path of a Java 17 or newer: JAVA_HOME's, else the first on the PATH.

    Raises:
        StackError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise StackError("Java is missing: install a JRE 17 or newer (Debian: apt-get install default-jre-headless)")
    release = Path(java).resolve().parents[1] / "release"  # a JDK or JRE tells its version there
    if release.is_file():
        match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', release.read_text(encoding="utf-8"))
        if match and int(match[1]) < _OLDEST_JAVA:
            raise StackError(f"{java} is Java {match[1]}: Kafka needs a JRE 17 or newer")
    return java


def archive() -> Path:
    """The JVM's archive of Kafka's classes, which halves its start."""
    return cache() / "kafka.jsa"


def _java_command(heap: str) -> list[str]:
    jars = sorted((cache() / "kafka").glob("*.jar"))
    if not jars:
        raise StackError(f"Kafka's jars are missing in {cache() / 'kafka'}: run `make setup`")
    fast = [f"-XX:SharedArchiveFile={archive()}", "-Xshare:auto"] if archive().exists() else []
    return [
        find_java(), "-Xms64m", f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *fast,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", ":".join(map(str, jars)),
    ]  # fmt: skip


def part(layout: Layout, port: int, controller_port: int) -> Part:
    """The broker's process.

    Raises:
        StackError: Java or the jars are missing.
    """
    properties = layout.home / "kafka.properties"
    properties.write_text(_properties(layout, port, controller_port), encoding="utf-8")
    return Part("kafka", "kafka", 0, port, [*_java_command("256m"), "kafka.Kafka", str(properties)], grace_s=20)


def prepare(layout: Layout) -> None:
    """Format the data folder, once.

    Raises:
        StackError: it could not be done.
    """
    if (layout.data / "kafka" / "meta.properties").exists():
        return
    cluster = "h" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]  # may not begin with a dash
    made = subprocess.run(
        [*_java_command("128m"), "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster,
         "-c", str(layout.home / "kafka.properties")],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if made.returncode:
        last = (made.stderr or made.stdout).strip().splitlines()[-1:]
        raise StackError(f"Kafka's data folder could not be formatted: {' '.join(last)}")


def ready(port: int) -> bool:
    """Whether the broker answers requests (its port is open before it does)."""
    ask = struct.pack(">hhih", _API_VERSIONS, 0, 1, -1)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(ask)) + ask)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _properties(layout: Layout, port: int, controller_port: int) -> str:
    """Settings of the broker; a killed one is taken back when its session has ended, so that is short."""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{LOOPBACK}:{controller_port}
listeners=PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}
advertised.listeners=PLAINTEXT://{LOOPBACK}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={layout.data / "kafka"}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=2097152
log.message.timestamp.before.max.ms=9223372036854775807
log.message.timestamp.after.max.ms=9223372036854775807
log.segment.bytes=134217728
"""
