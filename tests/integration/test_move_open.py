"""A new calendar version touches open dossiers only when it is told to, and then says what it moved."""

from datetime import date, timedelta

from deploy.demo.sample import SAMPLE
from shared.directory.reading import load_bundle
from shared.directory.store import load
from shared.security.tokens import Role
from tests.harness import Backing, real_services, running_site
from tests.integration.intake_site import HOME, client, done, dossier, history, imported, instant, received


async def test_a_new_calendar_moves_open_due_dates_and_says_so(backing: Backing) -> None:
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as own:
        admin = client(own, Role.ADMIN)
        service = client(own, Role.SERVICE)
        now = await own.value("SELECT clock_timestamp()")
        moving = await received(admin)
        kept = await imported(
            admin,
            [{"op": "receive", "ref": "k", **dossier(), "due_at": (now + timedelta(days=9)).isoformat()}],
            source="kept",
        )
        ended = (await received(admin))["code"]
        await done(admin, ended, "resolution", result="granted")
        due_day = instant(moving["due_at"]).date()
        bundle = load_bundle(SAMPLE)
        (first, *_) = [c for c in bundle.calendars if c.agency == "H55"]
        version = first.model_copy(update={"version": 2, "valid_from": date(2026, 1, 1), "closed": (due_day,)})
        changed = bundle.model_copy(update={"calendars": (*bundle.calendars, version)})
        connection = await own.database.acquire()
        try:
            await load(connection, changed, who="test")
        finally:
            await own.database.release(connection)
        await own.services["intake"].directory.refresh()
        would = (await service.post("/v1/site/moves", json={"dry_run": True})).json()["items"]
        assert [(item["code"], item["from"]) for item in would] == [(moving["code"], moving["due_at"])]
        assert instant(would[0]["to"]) > instant(moving["due_at"])
        unchanged = (await admin.get(f"/v1/dossiers/{moving['code']}")).json()
        assert (unchanged["due_at"], unchanged["version"]) == (moving["due_at"], 1)
        assert (await service.post("/v1/site/moves", json={"dry_run": False})).json()["items"] == would
        moved = (await history(admin, moving["code"]))[-1]
        assert (moved["type"], moved["calendar"]) == ("dossier.rescheduled", {"agency": "H55", "version": 2})
        assert (instant(moved["previous_due_at"]), instant(moved["due_at"])) == (
            instant(would[0]["from"]),
            instant(would[0]["to"]),
        )
        assert (await service.post("/v1/site/moves", json={"dry_run": False})).json()["items"] == []
        why = (await admin.get(f"/v1/dossiers/{moving['code']}/explain")).json()
        assert (why["due_at"], why["calendar"]["version"]) == (would[0]["to"], 2)
        for code in (kept[0]["code"], ended):
            assert "dossier.rescheduled" not in [item["type"] for item in await history(admin, code)]
        assert (await client(own, Role.DESK, HOME).post("/v1/site/moves", json={})).status_code == 403
