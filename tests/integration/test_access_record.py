"""Every read of unsealed personal data is recorded: who, when, of which dossier. It is kept, and shown to auditors."""

import ast
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, client, received, refused

ROOT = Path(__file__).parents[2] / "services"
# Where sealed data is opened. Each of them is recorded by `access_put` beside it, or is the system's own work, seen by
# nobody: notify tells the person, intake compares what is said now with what was said before.
OPENED = {
    "intake/store.py": {"open_contact", "persons", "contact", "contacts", "give_back"},
    "intake/api.py": {"one"},
    "intake/petitions_api.py": {"one", "answered"},
    "intake/petitions.py": {"said"},
    "intake/desk_api.py": None,
    "intake/connector.py": {"_send"},
    "notify/api.py": {"notices"},
    "notify/seen_api.py": None,
    "notify/store.py": {"person", "open", "words_of"},
    "notify/handlers.py": {"follow_by_post", "_follow_changes"},
    "notify/sender.py": None,
}


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as running:
        yield running


async def test_who_read_whom_is_known(site: RunningSite) -> None:
    desk, auditor = client(site, Role.DESK, HOME, name="Trần Thị Cán Bộ"), client(site, Role.AUDITOR)
    code, other = (await received(desk))["code"], (await received(desk))["code"]
    await desk.get(f"/v1/dossiers/{code}")
    await desk.get(f"/v1/dossiers/{other}")
    await auditor.get(f"/v1/dossiers/{code}")  # without the applicant: no read
    items = (await auditor.get("/v1/access", params={"code": code})).json()["items"]
    assert [(i["who"], i["role"], i["code"], i["what"]) for i in items] == [
        ("Trần Thị Cán Bộ", "desk", code, "applicant")
    ]
    assert items[0]["at"].endswith("Z") or "+" in items[0]["at"]
    assert [i["code"] for i in (await auditor.get("/v1/access")).json()["items"]] == [other, code]
    for role in (Role.DESK, Role.OFFICER, Role.OPERATOR, Role.PORTAL):
        who = client(site, role, HOME if role in (Role.DESK, Role.OFFICER) else None)
        refused(await who.get("/v1/access"), 403, "forbidden")


async def test_a_petition_that_is_read_is_recorded(site: RunningSite) -> None:
    portal = client(site, Role.PORTAL, name="portal-p")
    filed = await portal.post("/v1/petitions", json={"agency": HOME, "kind": "letter", "text": "Xin hỏi"})
    petition = filed.json()["id"]
    await portal.get(f"/v1/petitions/{petition}")
    items = (await client(site, Role.AUDITOR).get("/v1/access", params={"code": petition})).json()["items"]
    assert [(i["who"], i["what"]) for i in items] == [("portal-p", "petition")]


def test_nobody_opens_sealed_data_elsewhere() -> None:
    """A new place that opens sealed data has to be looked at, and put on the list."""
    openers = {"unseal", "open_contact", "contact", "open"}
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                of = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else "store"
                if name in openers and (of.endswith("store") or of == "self"):
                    found.setdefault(file.relative_to(ROOT).as_posix(), set()).add(function.name)
    assert found.keys() <= OPENED.keys()
    for file_name, functions in found.items():
        allowed = OPENED[file_name]
        assert allowed is None or functions - {"routes", "petition_routes"} <= allowed, file_name
