"""Promise 1, answered means stored: what intake answered is there, whatever became of the database meanwhile."""

import asyncio
import re
from collections import Counter

from shared.security.tokens import Role
from tests.harness import Backing, real_services, running_site
from tests.integration.intake_site import client, dossier, numbers


async def test_what_was_answered_is_there_after_the_database_went_away(backing: Backing) -> None:
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as own:
        admin = client(own, Role.ADMIN)
        answered: list[str] = []
        refusals: Counter[int] = Counter()
        stop = asyncio.Event()

        async def one(number: int) -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                key = {"Idempotency-Key": f"{number}-{turn}"}
                body = dossier()
                while True:  # as a client does: the same key until it is answered
                    answer = await admin.post("/v1/dossiers", json=body, headers=key)
                    if answer.status_code == 201:
                        answered.append(answer.json()["code"])
                        break
                    assert answer.status_code in (409, 503), answer.text
                    if answer.status_code == 503:
                        assert re.fullmatch(r"\d+", answer.headers["retry-after"])
                    refusals[answer.status_code] += 1
                    await asyncio.sleep(0.02)

        clients = [asyncio.create_task(one(number)) for number in range(16)]
        for goal in (50, 150, 250):
            await own.until(lambda goal=goal: len(answered) >= goal)  # type: ignore[misc]
            await own.fetch(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'lienthong'"""
            )
        await own.until(lambda: len(answered) >= 350)
        stop.set()
        await asyncio.gather(*clients)
        stored = [row["code"] for row in await own.fetch("SELECT code FROM intake.dossier")]
        assert len(set(answered)) == len(answered)
        assert sorted(stored) == sorted(answered)  # each once: what was answered, and nothing twice
        for each in numbers(stored).values():
            assert each == list(range(1, len(each) + 1))
