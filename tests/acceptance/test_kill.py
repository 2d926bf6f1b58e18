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
import pytest

from tests.acceptance.command import Up, json_lines, processes_on, receipt, reconciled, until

KILLS = int(os.environ.get("LIENTHONG_KILLS", "3"))
SEED = int(os.environ.get("LIENTHONG_SEED", "1"))
CLERKS = 4


class Desk:
    """Clerks who receive dossiers without end. One that gets no answer asks again under the same key, as long as it takes."""

    def __init__(self, up: Up) -> None:
        self.up = up  # the folder and its ports stay the same over the kills
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

    def answers(self, more: int, when: str) -> None:
        """Waits until so many more dossiers have been answered."""
        wanted = len(self.answered) + more
        until(lambda: len(self.answered) >= wanted, f"{more} dossiers are answered {when}")

    def _work(self, clerk: int) -> None:
        turn = 0
        with self.up.http("intake") as http:
            while self._open:
                turn += 1
                self._receive(http, f"clerk-{clerk}-{turn}")
                time.sleep(0.05)  # the next applicant sits down

    def _receive(self, http: httpx.Client, key: str) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = http.post("/v1/dossiers", json=receipt(), headers={"Idempotency-Key": key}, timeout=10)
                if answer.status_code == 201:
                    self.answered[key] = answer.json()["code"]
                    return
                if answer.status_code not in (409, 500, 503):
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
                    return
            time.sleep(0.05)  # as a client backs off


def published(up: Up) -> dict[str, list[int]]:
    """The sequences of each dossier as they lie on the bus, repeats included."""
    found: dict[str, list[int]] = {}
    for record in asyncio.run(up.bus().records("lienthong.dossier.v1")):
        found.setdefault((record.key or b"").decode(), []).append(record.sequence)
    return found


@pytest.mark.timeout(240 + 60 * KILLS)
def test_nothing_that_was_answered_is_lost_or_doubled(tmp_path: Path) -> None:
    data, chance = tmp_path / "data", random.Random(SEED)
    up = Up.start(data)
    desk = Desk(up)
    desk.open()
    try:
        for turn in range(KILLS):
            desk.answers(1, f"before kill {turn}")
            time.sleep(chance.uniform(0.0, 1.5))  # not a wait for a condition: the moment is the experiment
            up.signal(signal.SIGKILL)
            up = Up.start(data)
        desk.answers(2 * CLERKS, "after the last kill")
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
        for code, sequences in published(up).items():
            assert list(dict.fromkeys(sequences)) == list(range(1, max(sequences) + 1)), code
        # Counted once.
        with up.http("stats") as http:
            window = http.get("/v1/indicators/rolling", params={"agency": "H55.242", "window": "24h"}).json()
        assert window["received"]["total"] == len(codes)
        # Told once: every dossier has its notice, and no notice was handed over twice.
        until(lambda: len(json_lines(data / "sent.ndjson")) >= len(codes), "all are told")
        told = json_lines(data / "sent.ndjson")
        assert max(Counter(line["id"] for line in told).values()) == 1
        texts = " ".join(str(line["text"]) for line in told)
        assert [code for code in codes if texts.count(code) != 1] == []
    finally:
        up.stop()
    assert processes_on(data) == []
