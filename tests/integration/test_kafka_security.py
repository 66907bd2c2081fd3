"""Kafka with TLS, passwords and certificates: every client of ours takes them from the same settings."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from headrace_core.definitions.topics import Topic
from headrace_core.init.topics import apply_topics
from headrace_core.runtime.kafka_clients import connection, idempotent_producer
from headrace_core.runtime.kafka_identity import read_identity
from headrace_core.settings import KafkaSettings
from headrace_stack.layout import Layout, checkout
from headrace_stack.ports import PortBook
from headrace_stack.stack import Stack
from headrace_stack.stores import kafka
from pydantic import SecretStr

from tests.integration.stack_cli import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

USER: Final = "headrace"
PASSWORD: Final = "not-guessed"
PROTOCOLS: Final = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
#: What the broker is told besides the stack's own settings; listener SSL wants a certificate, the others a password.
SECURED: Final = """
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
"""


@dataclass(frozen=True)
class Broker:
    """A broker with a listener for each protocol.

    Attributes:
        folder: of the authority's and the user's certificates.
        ports: by protocol.
    """

    folder: Path
    ports: dict[str, int]

    def settings(self, protocol: str, **other: Any) -> KafkaSettings:
        told: dict[str, Any] = {
            "kafka": f"127.0.0.1:{self.ports[protocol]}", "kafka_security_protocol": protocol,
        }  # fmt: skip
        if protocol.startswith("SASL"):
            told |= {"kafka_user": USER, "kafka_password": SecretStr(PASSWORD)}
        if protocol == "SASL_PLAINTEXT":
            told |= {"kafka_sasl_mechanism": "PLAIN"}
        if protocol.endswith("SSL"):
            told |= {"kafka_ca_file": self.folder / "ca.crt"}
        if protocol == "SSL":
            told |= {"kafka_certificate_file": self.folder / "user.crt", "kafka_key_file": self.folder / "user.key"}
        return KafkaSettings(**told | other)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """An authority, and by it a certificate of the broker and one of its user."""

    def request(name: str, *how: str | Path) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key")
        openssl("req", "-x509", "-days", "2", *key, "-out", folder / f"{name}.crt", "-subj", f"/CN={name}", *how)

    signed = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    request("ca")
    request("broker", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    request("user", *signed)
    parts = [(folder / f"broker.{part}").read_text(encoding="ascii") for part in ("key", "crt")]
    (folder / "broker.pem").write_text("".join(parts), encoding="ascii")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("secured")
    make_certificates(folder)
    layout = Layout(folder / "home")
    layout.make()
    ports = PortBook(layout.ports, layout.home).choose(["PLAINTEXT", *PROTOCOLS, "CONTROLLER"], {})
    command = kafka.part(layout, ports["PLAINTEXT"], ports["CONTROLLER"]).command
    properties = Path(command[-1])
    with properties.open("a", encoding="utf-8") as file:
        file.write(
            SECURED.format(
                listeners=",".join(f"{p}://127.0.0.1:{ports[p]}" for p in ("PLAINTEXT", *PROTOCOLS)),
                protocols=",".join(f"{p}:{p}" for p in ("PLAINTEXT", *PROTOCOLS)),
                controller=ports["CONTROLLER"], folder=folder, user=USER, password=PASSWORD,
                modules="org.apache.kafka.common.security",
            )
        )  # fmt: skip
    credentials = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    tool = [*command[:-2], "kafka.tools.StorageTool", "format", "-t", "secured-secured-secured"]
    subprocess.run([*tool, "-c", properties, "--add-scram", credentials], check=True, capture_output=True)
    with (folder / "kafka.log").open("wb") as log, ExitStack() as ending:
        process = psutil.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        ending.callback(process.wait, 60)
        ending.callback(process.terminate)
        wait_until(lambda: kafka.ready(ports["PLAINTEXT"]), "a broker that answers")
        yield Broker(folder, {protocol: ports[protocol] for protocol in PROTOCOLS})


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_clients_make_topics_write_and_read(broker: Broker, protocol: str) -> None:
    settings, topic = broker.settings(protocol), f"topic-{uuid.uuid4()}"

    created = await apply_topics(settings, [Topic(topic, 1, 60_000, compacted=False)], 1)
    identity = await read_identity(settings, [topic])
    producer = idempotent_producer(settings)
    await producer.start()
    await producer.send_and_wait(topic, b"hello")
    await producer.stop()
    consumer = AIOKafkaConsumer(topic, **connection(settings), auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()

    assert created == [topic]
    assert set(identity.topics) == {topic}
    assert record.value == b"hello"


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_wrong_password_is_refused(broker: Broker, protocol: str) -> None:
    producer = idempotent_producer(broker.settings(protocol, kafka_password=SecretStr("guessed")))

    with pytest.raises(KafkaError):
        await producer.start()
    await producer.stop()


async def test_broker_that_nobody_vouches_for_is_not_spoken_to(broker: Broker) -> None:
    producer = idempotent_producer(broker.settings("SASL_SSL", kafka_ca_file=broker.folder / "user.crt"))

    with pytest.raises(KafkaError):
        await producer.start()
    await producer.stop()


def environment(settings: KafkaSettings) -> dict[str, str]:
    """The settings as a service is told them."""
    told = settings.model_dump(exclude_unset=True, mode="json") | {
        "kafka_password": settings.kafka_password.get_secret_value()
    }
    return {f"HEADRACE_{name.upper()}": str(value) for name, value in told.items()}


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services on the listener that has both, TLS and a password."""
    services = ("gateway", "feature-worker", "sample-joiner", "control-plane")
    running = Stack(Layout(tmp_path_factory.mktemp("secured") / "home"), services=services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_DEFINITIONS", str(checkout() / "definitions"))
        for name, value in environment(broker.settings("SASL_SSL")).items():
            patch.setenv(name, value)
        running.up()
        try:
            yield running
        finally:
            running.down()


def test_services_work_by_tls_and_password(stack: Stack) -> None:
    with httpx.Client(base_url=stack.describe()["gateway"], timeout=30) as client:
        user = client.put("/v1/users/u1", json={"country": "China", "gender": "male"})
        item = client.put("/v1/items/ad1", json={"item_type": "ad", "title": "An ad"})
        event = {
            "event_id": str(uuid.uuid4()), "user_id": "u1", "event_time": int(time.time() * 1000), "action": "click",
            "item_id": "ad1", "item_type": "ad", "page_id": "100", "request_id": "",
        }  # fmt: skip
        sent = client.post("/v1/events", json={"events": [event]})

        def counted() -> bool:
            answer = client.get("/v1/features/top/top_ads_by_segment/China%7Cmale%7C100")
            return answer.status_code == 200 and bool(answer.json()["items"])

        wait_until(counted, "a click that is counted")

    assert (user.status_code, item.status_code, sent.status_code) == (202, 202, 202)
    assert {row["state"] for row in stack.statuses()} == {"ready"}
