"""Promises 1, 2, 3, 5 and 9 by the whole site: killed with -9 at random moments under load, and started again."""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer

from shared.bus.topic_ids import partitions_of
from tests.acceptance.command import Up, json_lines, processes_on, receipt, reconciled, until

KILLS = int(os.environ.get("LIENTHONG_KILLS", "3"))
SEED = int(os.environ.get("LIENTHONG_SEED", "1"))
CLERKS = 4


class Desk:
    """Clerks who receive dossiers without end. One that gets no answer asks again under the same key, as long as it takes."""

    def __init__(self, up: Up) -> None:
        self.url, self.token = up.url("intake"), up.token()
        self.asked = 0
        self.answered: dict[str, str] = {}
        self.wrong: list[str] = []
        self._open = True
        self._clerks = [threading.Thread(target=self._work, args=(number,)) for number in range(CLERKS)]

    def open(self) -> None:
        for clerk in self._clerks:
            clerk.start()

    def close(self) -> None:
        """Each clerk ends the request at hand."""
        self._open = False
        for clerk in self._clerks:
            clerk.join()

    def _work(self, clerk: int) -> None:
        turn = 0
        while self._open:
            turn += 1
            self._receive(f"clerk-{clerk}-{turn}")

    def _receive(self, key: str) -> None:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key}
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.post(
                    f"{self.url}/v1/dossiers", json=receipt(), headers=headers, timeout=10, trust_env=False
                )
                if answer.status_code == 201:
                    self.answered[key] = answer.json()["code"]
                    return
                if answer.status_code not in (409, 500, 503):
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
                    return
            time.sleep(0.05)  # as a client backs off


async def published(up: Up) -> dict[str, list[int]]:
    """The sequences of each dossier as they lie on the bus, repeats included."""
    consumer = AIOKafkaConsumer(bootstrap_servers=up.ready["bus"], enable_auto_commit=False, fetch_max_wait_ms=20)
    await consumer.start()
    found: dict[str, list[int]] = {}
    try:
        partitions = await partitions_of(consumer._client, ["lienthong.dossier.v1"])
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        while True:
            batches = await consumer.getmany(timeout_ms=500)
            if not batches:
                return found
            for records in batches.values():
                for record in records:
                    headers = dict(record.headers)
                    found.setdefault(record.key.decode(), []).append(int(headers["ce_sequence"]))
    finally:
        await consumer.stop()


def test_nothing_that_was_answered_is_lost_or_doubled(tmp_path: Path) -> None:
    data, chance = tmp_path / "data", random.Random(SEED)
    up = Up.start(data)
    desk = Desk(up)
    desk.open()
    try:
        for turn in range(KILLS):
            had = len(desk.answered)
            until(lambda had=had: len(desk.answered) > had, f"dossiers are answered before kill {turn}")
            moment = time.monotonic() + chance.uniform(0.0, 1.5)
            until(lambda moment=moment: time.monotonic() >= moment, "the moment of the kill")
            up.signal(signal.SIGKILL)
            up = Up.start(data)
        had = len(desk.answered)
        until(lambda: len(desk.answered) > had + CLERKS, "dossiers are answered after the last kill")
    finally:
        desk.close()

    try:
        assert desk.wrong == []
        codes = list(desk.answered.values())
        assert len(set(codes)) == len(codes)
        books = reconciled(data, wait=90)
        events = {
            hop["to"]: hop["applied"] for hop in books["hops"] if hop["hop"] == "applied" and hop["from"] == "intake"
        }
        assert set(events) >= {"routing", "notify", "stats"}

        # Stored: each answered dossier once, and no other.
        rows = asyncio.run(up.rows("SELECT code FROM intake.dossier"))
        assert sorted(row["code"] for row in rows) == sorted(codes)
        # Published: each dossier's events in order, without a hole, whatever was repeated.
        for code, sequences in asyncio.run(published(up)).items():
            assert list(dict.fromkeys(sequences)) == list(range(1, max(sequences) + 1)), code
        # Counted once.
        with up.http("stats") as http:
            window = http.get("/v1/indicators/rolling", params={"agency": "H55.242", "window": "24h"}).json()
        assert window["received"]["total"] == len(codes)
        # Told once: every dossier has its notice, and no notice was handed over twice.
        told = until(
            lambda: (sent := json_lines(data / "sent.ndjson")) and len(sent) >= len(codes) and sent, "all are told"
        )
        assert max(Counter(line["id"] for line in told).values()) == 1
        texts = " ".join(str(line["text"]) for line in told)
        assert [code for code in codes if texts.count(code) != 1] == []
    finally:
        up.stop()
    assert processes_on(data) == []
