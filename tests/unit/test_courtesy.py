"""Who waits for an answer goes first, and never for ever."""

import asyncio

import pytest

from shared import courtesy
from shared.courtesy import answering, anybody_waits, give_way, somebody_is_near

AGES = 3600.0  # seconds: longer than any test may take


async def in_turn(seen: list[str]) -> None:
    await give_way()
    seen.append("work")


async def test_work_waits_until_the_answer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "PATIENCE", AGES)
    monkeypatch.setattr(courtesy, "SHORT", AGES)
    seen: list[str] = []
    with answering():
        work = asyncio.create_task(in_turn(seen))
        for _ in range(10):  # turns in which work that does not wait would be done
            await asyncio.sleep(0)
        seen.append("answer")
    await work
    assert seen == ["answer", "work"]


async def test_work_goes_on_under_requests_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "PATIENCE", 0.0)
    monkeypatch.setattr(courtesy, "SHORT", AGES)
    seen: list[str] = []
    with answering():
        await in_turn(seen)
        assert anybody_waits()
    assert seen == ["work"]


async def test_what_is_answered_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "PATIENCE", AGES)
    monkeypatch.setattr(courtesy, "SHORT", 0.0)
    seen: list[str] = []
    with answering():
        await in_turn(seen)
    assert seen == ["work"]


async def test_a_request_that_fails_keeps_nobody_waiting() -> None:
    with pytest.raises(ZeroDivisionError), answering():
        raise ZeroDivisionError
    assert not anybody_waits()


async def test_who_was_answered_a_moment_ago_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "NEAR", AGES)
    monkeypatch.setattr(courtesy, "_answered", float("-inf"))
    monkeypatch.setattr(courtesy, "SHORT", 0.0)
    with answering():
        pass
    assert not somebody_is_near()  # that took long: it was an import
    monkeypatch.setattr(courtesy, "SHORT", AGES)
    with answering():
        assert somebody_is_near()
    assert somebody_is_near()
    monkeypatch.setattr(courtesy, "NEAR", 0.0)
    assert not somebody_is_near()
