"""The people at work: desks, officers and a portal act on dossiers, registers are imported, whatever happens to the site.

Every write carries an Idempotency-Key and is repeated under it until it is answered; a file of lines is sent again until
it is answered. So the ledger knows of each act whether it took place, once, and nothing is left in doubt.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson

from shared.security.tokens import Role
from tests.chaos.ledger import Act, Dossier, Ledger, TransferAct
from tests.stack import Stack

AGENCIES = ("H55.201", "H55.218", "H55.226", "H55.242")
PROBE_DESK = "H55.241"  # where nobody else comes
SECTORS = ("H55.17", "H55.21", "H55.22", "H55.23", "H55.24")
ROUTED = ("2.002621", "2.002622", "1.004222", "1.001699", "1.001776", "1.013978", "1.012783")
PLAIN = ("1.004873", "2.000815", "1.001193", "2.000720", "1.013225", "1.011607", "2.000942", "2.001263")
OFFLINE = ("2.000942", "2.001263")  # cannot be submitted online
SUBMITTED, RECEIVED, REFUSED, WORKED_ON, STOPPED, RESOLVED, RETURNED = 1, 2, 3, 4, 8, 9, 10

# What people do next in each state, with how often.
NEXT: dict[int, dict[str, float]] = {
    1: {"receive": 6, "refuse": 1, "supplement-request": 0.7, "withdrawal-request": 0.3},
    2: {
        "start": 6,
        "supplement-request": 0.8,
        "payment-request": 0.8,
        "extension": 0.6,
        "stop": 0.2,
        "digitisation": 1,
        "payment": 0.3,
        "withdrawal-request": 0.3,
        "resolution": 0.4,
    },
    4: {
        "resolution": 4,
        "supplement-request": 0.8,
        "payment-request": 0.5,
        "extension": 0.5,
        "digitisation": 0.7,
        "stop": 0.3,
        "withdrawal-request": 0.3,
    },
    5: {"supplement": 5, "payment": 0.4, "extension": 0.4, "stop": 0.3, "withdrawal-request": 0.2, "digitisation": 0.3},
    6: {"payment": 5, "stop": 0.3, "extension": 0.3},
    7: {"withdrawal": 1, "withdrawal-refusal": 2, "extension": 0.2},
    9: {"return": 5, "rating": 1, "digitisation": 0.3, "payment": 0.3},
    3: {"rating": 1},
    8: {"rating": 1},
    10: {"rating": 1},
}
BY_OFFICER = {"start", "resolution"}
LEVELS = ("very_satisfied", "satisfied", "neutral", "dissatisfied")
CONTENT = {"accept": {}, "refuse": {"reason": "x"}, "recall": {"reason": "x"}, "request-again": {}}

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    replayed: bool


class Client:
    """Asks until it is answered: whatever breaks, the same request is sent again under its key, to any process."""

    def __init__(self, stack: Stack, ledger: Ledger, seed: int) -> None:
        self._stack, self._ledger = stack, ledger
        self._random = random.Random(f"client {seed}")
        self._http = httpx.AsyncClient(timeout=8.0, trust_env=False, limits=httpx.Limits(max_connections=200))

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, service: str, path: str, headers: Headers, **params: Any) -> Any:
        """One look; None when there is no answer."""
        try:
            answer = await self._http.get(self._any(service) + path, headers=headers, params=params)
            return answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    async def write(
        self, service: str, path: str, headers: Headers, content: bytes, kind: str = "application/json", **params: Any
    ) -> httpx.Response:
        """The definite answer: one that neither a fault nor a request that still runs gave."""
        headers = headers | {"Content-Type": kind}
        self._ledger.requests += 1
        pause = 0.05
        while True:
            try:
                answer = await self._http.post(
                    self._any(service) + path, headers=headers, content=content, params=params
                )
                if answer.status_code < 500 and not (
                    answer.status_code == 409 and answer.json().get("code") == "idempotency-key-running"
                ):
                    return answer
                self._ledger.errors += answer.status_code >= 500
                if answer.status_code == 500:
                    self._note(f"500 {path.rsplit('/', 1)[-1]}")
            except (httpx.HTTPError, ValueError):
                pass
            self._ledger.repeated += 1
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    async def keyed(self, service: str, path: str, headers: Headers, body: Any, key: str) -> Answer:
        answer = await self.write(service, path, headers | {"Idempotency-Key": key}, orjson.dumps(body))
        if answer.status_code not in (200, 201, 409, 422):
            self._note(f"{answer.status_code} {path.rsplit('/', 1)[-1]}")
        return Answer(answer.status_code, answer.json(), "idempotent-replayed" in answer.headers)

    def _note(self, what: str) -> None:
        self._ledger.unexpected[what] = self._ledger.unexpected.get(what, 0) + 1

    def _any(self, service: str) -> str:
        return self._random.choice(self._stack.urls(service))


class Load:
    """The whole load. `run` until `stop` was called and everything that was asked is answered."""

    def __init__(self, stack: Stack, ledger: Ledger, seed: int, *, lives: int, think: float) -> None:
        self.ledger, self._stack, self._seed = ledger, stack, seed
        self._lives, self._think = lives, think
        self.client = Client(stack, ledger, seed)
        self._stopping = asyncio.Event()
        self._numbers = itertools.count(1)
        self._desk = {agency: stack.token(Role.DESK, agency) for agency in (*AGENCIES, PROBE_DESK)}
        self._officer = {agency: stack.token(Role.OFFICER, agency) for agency in (*AGENCIES, PROBE_DESK)}
        self._working = stack.token(Role.OFFICER, "H55", subtree=True)
        self._portal = stack.token(Role.PORTAL)
        self._admin = stack.token(Role.ADMIN)

    def stop(self) -> None:
        """Nobody begins anything new."""
        self._stopping.set()

    async def run(self) -> None:
        await asyncio.gather(
            *(self._person(number) for number in range(self._lives)), self._register("kiosk"), self._register("old")
        )

    # -- people

    async def _person(self, number: int) -> None:
        """One dossier after another."""
        chance = random.Random(f"{self._seed} person {number}")
        await asyncio.sleep(chance.random() * self._think)
        while not self._stopping.is_set():
            await self._life(chance)

    async def _pause(self, chance: random.Random, longer: float = 1.0) -> None:
        try:
            async with asyncio.timeout(chance.expovariate(1 / (self._think * longer))):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _new(self, chance: random.Random, agency: str, procedure: str) -> tuple[Dossier, dict[str, Any]]:
        """A dossier and the body that brings it in."""
        number = next(self._numbers)
        channel = chance.choice(("counter", "counter", "online", "postal"))
        if procedure in OFFLINE and channel == "online":
            channel = "counter"
        applicant: dict[str, Any] = {"kind": "citizen", "name": f"Người thử {number}"}
        draw = chance.random()
        phone: str | None = f"0912{number:06d}"
        address = None
        if draw < 0.1:  # somebody who comes again and again
            person = chance.randrange(20)
            phone = f"0987{person:06d}"
            applicant |= {"citizen_id": f"0{person:011d}", "name": f"Người quen {person}"}
        elif draw < 0.18:
            phone, address = None, f"Số {number}, đường Thử"
            applicant["address"] = address
        elif draw < 0.23:
            phone = None
        if phone is not None:
            applicant["phone"] = phone
        components = [
            {"name": f"Giấy {n}", "digitised": chance.random() < 0.3} for n in range(chance.choice((0, 1, 2)))
        ]
        dossier = Dossier(agency, procedure, channel, phone, address)
        dossier.components = len(components)
        dossier.digitised = sum(1 for component in components if component["digitised"])
        self.ledger.dossiers.append(dossier)
        body = {
            "procedure": procedure,
            "receiving_agency": agency,
            "channel": channel,
            "applicant": applicant,
            "return_by": "counter",
            "components": components,
        }
        return dossier, body

    async def _life(self, chance: random.Random) -> None:
        agency = chance.choice(AGENCIES)
        routed = chance.random() < 0.4
        procedure = chance.choice(ROUTED if routed else PLAIN)
        dossier, body = self._new(chance, agency, procedure)
        submitted = chance.random() < 0.25
        by_portal = submitted and dossier.channel == "online"
        who = self._portal if by_portal else self._desk[agency]
        first = await self._begin(dossier, body, "submit" if submitted else "new", who, chance)
        if not first.took_place:
            return
        state = first.state or 0
        for _ in range(chance.randrange(4, 16)):
            await self._pause(chance)
            if self._stopping.is_set():
                return
            if state == WORKED_ON and routed and chance.random() < 0.85:
                await self._work_on_the_route(dossier, chance)
                seen = await self.client.get("intake", f"/v1/dossiers/{dossier.code}", self._officer[agency])
                state = seen["state"] if seen else state
                continue
            ops = NEXT.get(state, {})
            op = chance.choices(list(ops), list(ops.values()))[0] if ops else "rating"
            if chance.random() < 0.05:
                op = chance.choice([each for options in NEXT.values() for each in options])
            beside = chance.random()
            acts = [self._act(dossier, op, chance)]
            if beside < 0.06:  # two people at once
                acts.append(self._act(dossier, chance.choice(("digitisation", "payment", "extension", op)), chance))
            done = await asyncio.gather(*acts)
            state = max(done, key=lambda act: act.version or 0).state or state
            if state in (REFUSED, STOPPED, RETURNED) and chance.random() < 0.6:
                return

    async def _begin(self, dossier: Dossier, body: Any, op: str, who: Headers, chance: random.Random) -> Act:
        act = Act(op, asked=time.monotonic())
        dossier.acts.append(act)
        key = self._key(chance)
        path = "/v1/dossiers" if op == "new" else "/v1/submissions"
        answer = await self.client.keyed("intake", path, who, body, key)
        self._note(dossier, act, answer)
        if act.took_place:
            dossier.code = answer.body["code"]
        if chance.random() < 0.05:
            await self._again(dossier, "intake", path, who, body, key, answer)
        return act

    async def probe(self, number: int) -> Dossier:
        """One dossier with a route, received and started at a desk of its own, answered."""
        procedure, phone = "1.004222", f"0933{number:06d}"
        dossier = Dossier(PROBE_DESK, procedure, "counter", phone, None)
        self.ledger.dossiers.append(dossier)
        body = {
            "procedure": procedure,
            "receiving_agency": PROBE_DESK,
            "channel": "counter",
            "applicant": {"kind": "citizen", "name": "Người dò", "phone": phone},
            "return_by": "counter",
        }
        chance = random.Random(f"{self._seed} probe {number}")
        await self._begin(dossier, body, "new", self._desk[PROBE_DESK], chance)
        await self._act(dossier, "start", chance)
        return dossier

    async def touch(self, code: str) -> int | None:
        """One event more for this dossier, wherever it stands; its version, if one was possible."""
        dossier = self.ledger.coded.get(code)
        if dossier is None:
            return None  # its receipt is not answered yet: its people will go on with it
        chance = random.Random(f"{self._seed} touch {code}")
        act = await self._act(dossier, "digitisation", chance)
        if not act.took_place:
            act = await self._act(dossier, "rating", chance)
        return act.version

    async def _act(self, dossier: Dossier, op: str, chance: random.Random) -> Act:
        act = Act(op, asked=time.monotonic())
        body = self._content(dossier, op, act)
        dossier.acts.append(act)
        agency = dossier.agency
        who = self._officer[agency] if op in BY_OFFICER else self._desk[agency]
        path, key = f"/v1/dossiers/{dossier.code}/{op}", self._key(chance)
        answer = await self.client.keyed("intake", path, who, body, key)
        self._note(dossier, act, answer)
        if chance.random() < 0.04:
            await self._again(dossier, "intake", path, who, body, key, answer)
        return act

    def _content(self, dossier: Dossier, op: str, act: Act) -> dict[str, Any]:
        """The body of an operation, with what marks this act among all others."""
        number = next(self._numbers)
        match op:
            case "refuse" | "supplement-request" | "withdrawal-request" | "withdrawal-refusal" | "stop":
                act.mark = f"m{number}"
                return {"reason": act.mark}
            case "payment-request":
                act.mark = number
                return {"amount": number}
            case "payment":
                act.mark = number
                return {"amount": number, "method": "counter"}
            case "extension":
                act.mark = f"m{number}"
                due = max((a.due_at for a in dossier.acts if a.due_at), key=datetime.fromisoformat, default=None)
                later = datetime.fromisoformat(due) if due else datetime.now().astimezone() + timedelta(days=9)
                return {"reason": act.mark, "due_at": (later + timedelta(hours=number % 90 + 1)).isoformat()}
            case "digitisation":
                act.mark = f"Giấy m{number}"
                return {"component": act.mark}
            case "resolution":
                act.mark = f"m{number}"
                return {"result": "granted" if number % 9 else "denied", "ref": act.mark}
            case "return":
                return {"by": "counter"}
            case "rating":
                act.mark = LEVELS[number % 4]
                return {"level": act.mark}
        return {}

    def _note(self, dossier: Dossier, act: Act, answer: Answer) -> None:
        act.answered, act.status = time.monotonic(), answer.status
        act.took_place = 200 <= answer.status < 300
        body = answer.body if isinstance(answer.body, dict) else {}
        act.state = body.get("state")
        if act.took_place:
            act.version, act.due_at = body["version"], body["due_at"]
        else:
            self.ledger.refused += 1

    async def _again(
        self, dossier: Dossier, service: str, path: str, who: Headers, body: Any, key: str, first: Answer
    ) -> None:
        """An answered request once more: the stored answer comes back, and nothing happens."""
        if first.status == 422:
            return  # a request that was itself wrong is not kept
        again = await self.client.keyed(service, path, who, body, key)
        if (again.status, again.body) != (first.status, first.body):
            what = f"{path} under its key again: {first.status} {first.body}, then {again.status} {again.body}"
            self.ledger.wrong.append(("1", dossier.code, what))
        elif not again.replayed:
            self.ledger.wrong.append(("1", dossier.code, f"{path} under its key again was not said to be replayed"))

    @staticmethod
    def _key(chance: random.Random) -> str:
        return str(UUID(int=chance.getrandbits(128)))

    # -- the agencies that dossiers are handed to

    async def _work_on_the_route(self, dossier: Dossier, chance: random.Random) -> None:
        found = await self.client.get("routing", "/v1/transfers", self._admin, dossier=dossier.code)
        waiting = [
            item for item in (found or {}).get("items", []) if item["next_steps"] and not item.get("new_transfer")
        ]
        if not waiting:
            return
        item = chance.choice(waiting)
        options = {
            "delivered": {"accept": 8.0, "refuse": 1, "return": 0.5, "recall": 0.2, "reroute": 0.3},
            "accepted": {"complete": 8.0, "return": 0.5, "recall": 0.1, "accept": 0.2},
            "refused": {"request-again": 2.0, "reroute": 1},
            "returned": {"request-again": 2.0, "reroute": 1},
            "recalled": {"request-again": 2.0, "reroute": 1},
        }.get(item["state"], {})
        if not options:
            return
        op = chance.choices(list(options), list(options.values()))[0]
        body: dict[str, Any] = dict(CONTENT.get(op, {}))
        if op == "complete":
            body = {"result": "granted" if chance.random() < 0.9 else "denied"}
        elif op == "return":
            body = {"reason": "x", "need": "supplement"}
        elif op == "reroute":
            body = {"to": chance.choice([each for each in SECTORS if each != item["to"]]), "reason": "x"}
        act = TransferAct(item["id"], op)
        dossier.transfers.append(act)
        path, key = f"/v1/transfers/{item['id']}/{op}", self._key(chance)
        answer = await self.client.keyed("routing", path, self._working, body, key)
        act.status, act.took_place = answer.status, answer.status == 200
        if act.took_place and op in ("reroute", "request-again"):
            act.new_transfer = answer.body.get("new_transfer")
        if chance.random() < 0.05:
            await self._again(dossier, "routing", path, self._working, body, key, answer)

    # -- registers of other systems

    async def _register(self, source: str) -> None:
        """Small files, one after another; each is sent until it is answered, some of them twice."""
        chance = random.Random(f"{self._seed} register {source}")
        agency = chance.choice(AGENCIES)
        open_refs: list[tuple[str, Dossier, list[str]]] = []
        while not self._stopping.is_set():
            await self._pause(chance, 8.0)
            lines: list[dict[str, Any]] = []
            acts: list[tuple[Dossier, Act]] = []
            for _ in range(chance.randrange(1, 6)):
                self._new_ref(source, agency, chance, lines, acts, open_refs)
            for ref, dossier, left in open_refs:
                for _ in range(min(len(left), chance.randrange(0, 3))):
                    self._line(dossier, ref, left.pop(0), lines, acts)
                if chance.random() < 0.1:
                    self._line(dossier, ref, "receive", lines, acts)  # refused: it was received
            open_refs = [entry for entry in open_refs if entry[2]]
            await self._send(source, agency, lines, acts, twice=chance.random() < 0.2)

    def _new_ref(
        self,
        source: str,
        agency: str,
        chance: random.Random,
        lines: list[dict[str, Any]],
        acts: list[tuple[Dossier, Act]],
        open_refs: list[tuple[str, Dossier, list[str]]],
    ) -> None:
        dossier, body = self._new(chance, agency, chance.choice(PLAIN))
        ref = f"{source}-{next(self._numbers)}"
        act = Act("new", imported=True)
        dossier.acts.append(act)
        acts.append((dossier, act))
        lines.append({"op": "receive", "ref": ref, "id": f"id{next(self._numbers)}", **body})
        rest = ["start", "digitisation", "resolution", "return", "rating"]
        if chance.random() < 0.3:
            rest[1:2] = ["supplement-request", "supplement", "extension"]
        open_refs.append((ref, dossier, rest[: chance.randrange(1, 6)]))

    def _line(
        self, dossier: Dossier, ref: str, op: str, lines: list[dict[str, Any]], acts: list[tuple[Dossier, Act]]
    ) -> None:
        act = Act(op, imported=True)
        content = self._content(dossier, op, act)
        dossier.acts.append(act)
        acts.append((dossier, act))
        lines.append({"op": op, "ref": ref, "id": f"id{next(self._numbers)}", **content})

    async def _send(
        self,
        source: str,
        agency: str,
        lines: Sequence[dict[str, Any]],
        acts: Sequence[tuple[Dossier, Act]],
        *,
        twice: bool,
    ) -> None:
        content = b"\n".join(orjson.dumps(line) for line in lines)
        began = time.monotonic()
        self.ledger.lines += len(lines)
        answered = await self._import(source, agency, content)
        for (dossier, act), line in zip(acts, answered, strict=True):
            act.asked, act.answered = began, time.monotonic()
            act.took_place = line["status"] in ("applied", "duplicate")
            if act.op == "new" and act.took_place:
                dossier.code = line["code"]
            if not act.took_place:
                self.ledger.refused += 1
        if twice:
            for (dossier, act), line in zip(acts, await self._import(source, agency, content), strict=True):
                if not act.took_place and line["status"] == "applied":
                    act.took_place = True  # refused at first, and possible by now
                elif act.took_place != (line["status"] == "duplicate"):
                    self.ledger.wrong.append(("3", dossier.code, f"a line sent again was {line['status']}: {line}"))

    async def _import(self, source: str, agency: str, content: bytes) -> list[dict[str, Any]]:
        """The answer to each line. One that says that it could not be stored now is no answer: the file comes again."""
        while True:
            answer = await self.client.write(
                "intake", "/v1/imports", self._desk[agency], content, "application/x-ndjson", source=source
            )
            answer.raise_for_status()
            lines: list[dict[str, Any]] = [orjson.loads(line) for line in answer.content.splitlines()]
            if not any(line.get("error", {}).get("code") == "not-stored" for line in lines):
                return lines
