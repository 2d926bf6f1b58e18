"""S2: one upper site and many lower ones, simulated: each joins, and then tells a life of dossiers at a steady rate.

What is looked at is the upper site: how far behind the peers it is, and what memory its services use, over time. The number of
lower sites is LIENTHONG_BENCH_SITES (40), the time three minutes times the scale.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
import psutil
import yaml
from aiokafka import AIOKafkaProducer

from deploy.demo.sample import SAMPLE
from services.routing.carried import event_json
from services.routing.link import BEGIN, START, Place, chain_over
from services.routing.wire import Way, batch_record, control_record, letter
from shared.contracts.codes import format_dossier_code, format_instant, local_day, uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DossierEvent,
    DossierProcessingStarted,
    DossierReceived,
    DossierResolved,
    LimitData,
    link_topics,
)
from shared.security.peers import Identity, canonical
from shared.security.tokens import Role
from tests.bench.keeping import command
from tests.bench.measure import Context, Figure, until

UPPER = "H55"
PER_SECOND = 1  # dossiers of each lower site, three events each
EVENTS = 3


@dataclass
class Peer:
    """A lower site by hand: it signs, numbers and sends; what comes down it does not read."""

    code: str
    identity: Identity
    place: Place = START
    chain: str = BEGIN
    tick: int = 0
    dossiers: int = 0
    sent_at: list[tuple[int, float]] = field(default_factory=list)

    @property
    def way(self) -> Way:
        return Way(self.code, "up", self.code, UPPER)

    async def join(self, context: Context) -> None:
        upper = context.stack
        operator, url = upper.token(Role.OPERATOR), upper.url("routing")
        invited = await upper.http.post(f"{url}/v1/links/invite", json={"site": self.code}, headers=operator)
        invited.raise_for_status()
        content = {
            "kind": "lienthong-reply",
            "site": self.code,
            "name": f"Xã {self.code}",
            "upper": UPPER,
            "keys": self.identity.announced,
            "ticket": invited.json()["ticket"],
        }
        text = orjson.dumps({**content, "jws": self.identity.sign(canonical(content))}).decode()
        confirmed = await upper.http.post(f"{url}/v1/links/confirm", json={"text": text}, headers=operator)
        confirmed.raise_for_status()

    def record(self, dossiers: int) -> bytes:
        """The next record: the whole lives of so many dossiers."""
        now = datetime.now(UTC)
        texts = [
            letter("copy", {"event": event_json(event)}, origin=self.code, to=UPPER, at=now).text
            for _ in range(dossiers)
            for event in self._life(now)
        ]
        first = Place(self.place.epoch, self.place.number + 1)
        value = batch_record(self.identity, self.way, first, self.chain, texts)
        self.chain = chain_over(self.chain, [sha256(text.encode()).hexdigest() for text in texts])[-1]
        self.place = Place(self.place.epoch, self.place.number + len(texts))
        self.sent_at.append((self.place.number, time.monotonic()))
        return value

    def control(self) -> bytes:
        self.tick += 1
        said = {
            "seen": {"epoch": 1, "number": 0, "chain": BEGIN, "asks": False},
            "sent": list(self.place),
            "clock": format_instant(datetime.now(UTC)),
            "reaches": [],
            "complete": format_instant(datetime.now(UTC)),
            "digests": None,
        }
        return control_record(self.identity, self.way, self.tick, said)

    def behind(self, received: int) -> float:
        """For how long what was sent first of what is not there yet has been under way, in seconds."""
        while self.sent_at and self.sent_at[0][0] <= received:
            self.sent_at.pop(0)
        return time.monotonic() - self.sent_at[0][1] if self.sent_at else 0.0

    def _life(self, now: datetime) -> Iterator[Envelope]:
        self.dossiers += 1
        code = format_dossier_code(self.code, local_day(now), self.dossiers)
        base: dict[str, Any] = {
            "agency": self.code, "deciding_agency": self.code, "procedure": "1.004873", "field": "G01-TP01",
            "due_at": now, "paused": False, "confidential": False,
        }  # fmt: skip
        life: tuple[DossierEvent, ...] = (
            DossierReceived(
                **base, previous=None, state=2, by="desk", channel="counter", return_by="counter",
                applicant_kind="citizen", limit=LimitData(value=3, unit="working_days"),
            ),
            DossierProcessingStarted(**base, previous=2, state=4, by="officer"),
            DossierResolved(**base, previous=4, state=9, by="officer", result="granted"),
        )  # fmt: skip
        for sequence, data in enumerate(life, start=1):
            yield Envelope(
                topic="lienthong.dossier.v1", id=uuid7(), source=f"/sites/{self.code}/intake", type=data.short,
                subject=code, time=now, recorded=now, sequence=sequence, mode="live", data=data.to_json(),
            )  # fmt: skip


async def s2(context: Context) -> Figure:
    """Whether the upper site keeps up, and stays as large as it is."""
    number, seconds = int(os.environ.get("LIENTHONG_BENCH_SITES", "40")), max(60.0, 180.0 * context.scale)
    upper = context.stack
    peers = [_peer(f"H55.{9000 + n}", upper.data / f"peer-{n}") for n in range(number)]
    await command(upper, "site", "load", str(_bundle(upper.data / "many.yaml", peers)))
    producer = AIOKafkaProducer(bootstrap_servers=upper.bootstrap, acks="all", linger_ms=5, max_request_size=4 << 20)
    await producer.start()
    try:
        for peer in peers:
            context.say(f"S2 {peer.code} joins")
            await peer.join(context)
        await until(lambda: _topics_are_there(producer, peers), 120, "the links' topics are made")
        began = time.monotonic()
        samples: list[dict[str, float]] = []
        speaking = [
            asyncio.create_task(_speak(producer, peer, began + n / number, seconds)) for n, peer in enumerate(peers)
        ]
        while (at := time.monotonic() - began) < seconds:
            context.say(f"S2 {number} sites, {at:.0f} of {seconds:.0f} s")
            await asyncio.sleep(min(10.0, seconds / 12))
            samples.append(await _look(context, peers, time.monotonic() - began))
        await asyncio.gather(*speaking)
        context.say("S2 drains")
        await until(lambda: _drained(context, peers), 120, "all that was sent is there")
        copies = sum(peer.place.number for peer in peers)
        await until(lambda: _counted(context, peers), 120, "all of it is counted")
    finally:
        await producer.stop()
    third = max(1, len(samples) // 3)
    behind = [fmean(s["behind"] for s in part) for part in (samples[:third], samples[-third:])]
    pss = [fmean(s["pss"] for s in part) for part in (samples[third : 2 * third], samples[-third:])]
    rate = copies / seconds
    flat = behind[1] <= max(1.0, 2 * behind[0]) and pss[1] <= 1.1 * pss[0]
    return Figure(
        "S2", f"{number} lower sites on one upper", rate, None, "copies/s", "lag and memory flat", flat,
        f"lag {behind[0]:.2f} s in the first third, {behind[1]:.2f} s in the last, {max(s['behind'] for s in samples):.2f} s"
        f" at most; PSS of the four services {pss[0]:.0f} MB in the middle third, {pss[1]:.0f} MB in the last",
        {"samples": samples, "sites": number, "copies": copies, "seconds": seconds},
    )  # fmt: skip


def _peer(code: str, folder: Path) -> Peer:
    folder.mkdir()
    return Peer(code, Identity(code, folder))


def _bundle(file: Path, peers: list[Peer]) -> Path:
    """The sample province with these communes, each a site of its own."""
    sample = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    sample["agencies"] += [
        {"code": p.code, "name": f"Xã {p.code}", "level": "commune", "parent": UPPER, "site": p.code, "valid_from": "2025-07-01"}
        for p in peers
    ]  # fmt: skip
    file.write_text(yaml.safe_dump(sample, allow_unicode=True), encoding="utf-8")
    return file


async def _topics_are_there(producer: AIOKafkaProducer, peers: list[Peer]) -> bool:
    try:
        async with asyncio.timeout(20):
            for peer in peers:
                await producer.partitions_for(link_topics(peer.code)[0])
    except Exception:
        return False
    return True


async def _speak(producer: AIOKafkaProducer, peer: Peer, began: float, seconds: float) -> None:
    """A record each second, and where it is every five."""
    topic, turn = link_topics(peer.code)[0], 0
    while turn < seconds:
        await asyncio.sleep(max(0.0, began + turn - time.monotonic()))
        values = [peer.record(PER_SECOND)]
        if turn % 5 == 0:
            values.append(peer.control())
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
        turn += 1


async def _received(context: Context) -> dict[str, int]:
    upper = context.stack
    answer = await upper.http.get(f"{upper.url('routing')}/v1/links", headers=upper.token(Role.OPERATOR))
    answer.raise_for_status()
    return {item["peer"]: item["received"]["number"] for item in answer.json()["items"]}


async def _look(context: Context, peers: list[Peer], at: float) -> dict[str, float]:
    received = await _received(context)
    sizes: dict[str, float] = {}
    for name, process in context.stack.processes.items():
        with suppress(psutil.Error):
            sizes[name] = psutil.Process(process.pid).memory_full_info().pss / 1e6
    behind = max(peer.behind(received.get(peer.code, 0)) for peer in peers)
    return {
        "at": round(at, 1),
        "behind": behind,
        "pss": sum(sizes.values()),
        **{k: round(v, 1) for k, v in sizes.items()},
    }


async def _drained(context: Context, peers: list[Peer]) -> bool:
    received = await _received(context)
    return all(received.get(peer.code) == peer.place.number for peer in peers)


async def _counted(context: Context, peers: list[Peer]) -> bool:
    """The upper site's own figures of its subtree."""
    upper, day = context.stack, local_day(datetime.now(UTC)).isoformat()
    query = {"agency": UPPER, "subtree": "true", "by": "receiving", "from": day, "to": day}
    answer = await upper.http.get(f"{upper.url('stats')}/v1/indicators", params=query, headers=upper.token())
    return bool(answer.json()["received"]["total"] == sum(peer.dossiers for peer in peers))
