"""The judge: from the ledger of what was answered it works out how everything must stand, and says what does not.

It shares no code with the services. It reads histories and figures over HTTP, the owners' logs and the consumers' places
from the database, the topics record by record, the provider's log and the carrier's file line by line. Each check is one
of the promises; a finding names the dossier, the promise and what differs.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import yaml
from aiokafka import AIOKafkaConsumer

from shared.bus.topic_ids import partitions_of
from shared.security.tokens import Role
from shared.service import SERVICES
from tests.chaos.figures import LOCAL, figure_in, kind, own_figures
from tests.chaos.ledger import Act, Dossier, Ledger
from tests.stack import Stack

OWNERS = {
    "lienthong.dossier.v1": "intake",
    "lienthong.contact.v1": "intake",
    "lienthong.transfer.v1": "routing",
    "lienthong.notice.v1": "notify",
}
COPY = "x-chaos"  # a header that marks what the driver itself has put on the bus again
EVENT_OF = {
    "new": "received",
    "receive": "received",
    "submit": "submitted",
    "refuse": "refused",
    "start": "processing-started",
    "supplement-request": "supplement-requested",
    "supplement": "supplemented",
    "payment-request": "payment-requested",
    "payment": "paid",
    "withdrawal-request": "withdrawal-requested",
    "withdrawal": "withdrawn",
    "withdrawal-refusal": "withdrawal-refused",
    "stop": "stopped",
    "extension": "extended",
    "digitisation": "digitised",
    "resolution": "resolved",
    "return": "returned",
    "rating": "rated",
}
MARK_IN = {
    "paid": "amount",
    "payment-requested": "amount",
    "digitised": "component",
    "resolved": "ref",
    "rated": "level",
}
BY_TIME = ("due-soon", "overdue", "rescheduled")
TOLD = ("received", "refused", "supplement-requested", "payment-requested", "extended", "resolved", "stopped")
TRANSFER_EVENT = {
    "accept": "accepted",
    "refuse": "refused",
    "complete": "completed",
    "return": "returned",
    "recall": "recalled",
    "reroute": "rerouted",
}
OPEN_TRANSFER = {"requested", "sent", "delivered", "accepted"}
# From which states of a transfer each event may come.
BEFORE = {
    "delivered": {"requested"},
    "accepted": {"delivered"},
    "refused": {"delivered", "requested"},
    "completed": {"accepted"},
    "returned": {"delivered", "accepted"},
    "recalled": OPEN_TRANSFER,
    "rerouted": OPEN_TRANSFER | {"refused", "returned", "recalled"},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as promised. `dossier` is "-" when it concerns none."""

    promise: str
    dossier: str
    what: str


@dataclass
class Verdict:
    """What the judge found, and how much it looked at."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    records: int = 0
    copies: int = 0
    notices: int = 0
    transfers: int = 0
    settled_after: float | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event in an owner's log."""

    topic: str
    key: str
    sequence: int
    id: str
    type: str
    payload: str | None

    @property
    def data(self) -> Any:
        return None if self.payload is None else orjson.loads(self.payload)


@dataclass
class Judge:
    """Judges one run. `lost` are the ids of events that the driver itself has taken from the bus; `began` is when the run
    began."""

    stack: Stack
    ledger: Ledger
    bundle: Path
    calls: Path
    letters: Path
    provider: str
    lost: set[str]
    began: datetime
    verdict: Verdict = field(default_factory=Verdict)
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notices: dict[str, dict[str, Any]] = field(default_factory=dict)
    untold: dict[str, dict[str, str]] = field(default_factory=dict)  # by dossier and act: why nobody was told

    def find(self, promise: str, dossier: str, what: str) -> None:
        self.verdict.findings.append(Finding(promise, dossier, what))

    async def judge(self, within: float) -> Verdict:
        """Waits until all is done that was begun, at most so many seconds, and looks at everything."""
        self.http = httpx.AsyncClient(timeout=60.0, trust_env=False, limits=httpx.Limits(max_connections=16))
        self.admin, self.operator = self.stack.token(), self.stack.token(Role.OPERATOR)
        self.connection = await asyncpg.connect(self.stack.database_url)
        try:
            await self._settle(within)
            for promise, dossier, what in self.ledger.wrong:
                self.find(promise, dossier, what)
            logs = await self._logs()
            await self._histories()
            self._acts()
            self._only_what_was_asked(logs)
            await self._bus(logs)
            await self._told()
            self._routes(logs)
            await self._indicators()
            await self._rebuild()
        finally:
            await self.connection.close()
            await self.http.aclose()
        return self.verdict

    async def _get(self, service: str, path: str, **params: Any) -> Any:
        answer = await self.http.get(self.stack.url(service) + path, headers=self.admin, params=params)
        answer.raise_for_status()
        return answer.json()

    async def _pages(self, service: str, path: str, **params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await self._get(service, path, **params, **cursor)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    # -- promise 5: everything comes to its end

    async def _settle(self, within: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        left: list[tuple[str, str, str]] = []
        while loop.time() < began + within:
            try:
                left = await self._left()
            except (httpx.HTTPError, OSError) as error:
                left = [("5", "-", f"a service does not answer: {type(error).__name__}")]
            if not left:
                self.verdict.settled_after = loop.time() - began
                return
            await asyncio.sleep(0.5)
        for promise, dossier, what in left[:50]:
            self.find(promise, dossier, f"{what} (still so after {within:.0f} s)")
        if len(left) > 50:
            self.find("5", "-", f"and {len(left) - 50} more that did not come to their end")

    async def _left(self) -> list[tuple[str, str, str]]:
        """What is still under way: nothing may be, once the faults have stopped."""
        left: list[tuple[str, str, str]] = []
        heads: dict[str, dict[str, int]] = {}
        for service in SERVICES:
            waiting = await self.connection.fetchval(f"SELECT count(*) FROM {service}.outbox")
            if waiting:
                left.append(("2", "-", f"{waiting} events of {service} are not published"))
        for topic, owner in OWNERS.items():
            rows = await self.connection.fetch(
                f"SELECT aggregateid, max(sequence) AS last FROM {owner}.event WHERE aggregatetype = $1 GROUP BY 1",
                family(topic),
            )
            heads[topic] = {row["aggregateid"]: row["last"] for row in rows}
        for service in SERVICES:
            consumes = (await self._get(service, "/v1/site"))["consumes"]
            rows = await self.connection.fetch(f"SELECT topic, key, sequence, waiting FROM {service}.inbox")
            places = {(row["topic"], row["key"]): row for row in rows}
            for topic in consumes:
                for key, last in heads.get(topic, {}).items():
                    place = places.get((topic, key))
                    if place is None or place["sequence"] != last or place["waiting"] is not None:
                        at = (
                            "nothing" if place is None else f"{place['sequence']} ({place['waiting'] or 'not waiting'})"
                        )
                        left.append(("5", key, f"{service} has applied {at} of {topic}, the owner has {last}"))
            for row in await self.connection.fetch(
                f"SELECT topic, key, sequence, state, reason, detail FROM {service}.pending ORDER BY number LIMIT 20"
            ):
                what = (
                    f"{row['state']} in {service}: {row['topic']} at {row['sequence']}: {row['reason']} {row['detail']}"
                )
                left.append(("4", row["key"], what))
        for state in ("planned", "held"):
            items = await self._pages("notify", "/v1/notices", state=state)
            left += [("9", i["dossier"], f"the notice {i['id']} ({i['act']}) is {state}") for i in items]
        orders = await self._pages("notify", "/v1/postal-orders", state="planned")
        left += [("9", order["dossier"], f"the postal order {order['id']} is planned") for order in orders]
        untold = (await self._get("notify", "/v1/told"))["missing"]
        left += [("9", code, "an act has neither a notice nor a reason") for code in untold]
        owed = (await self.http.get(self.provider + "/state")).json()["owed"]
        if owed:
            left.append(("9", "-", f"{owed} receipts have not been taken"))
        return left

    # -- promise 1: answered means stored, once, in order

    async def _logs(self) -> list[LogLine]:
        lines = []
        for topic, owner in OWNERS.items():
            rows = await self.connection.fetch(
                f"SELECT aggregateid, sequence, id, type, payload FROM {owner}.event WHERE aggregatetype = $1"
                " ORDER BY aggregateid, sequence",
                family(topic),
            )
            lines += [
                LogLine(topic, r["aggregateid"], r["sequence"], str(r["id"]), r["type"], r["payload"]) for r in rows
            ]
        self.verdict.events = len(lines)
        return lines

    async def _histories(self) -> None:
        gate = asyncio.Semaphore(8)

        async def one(code: str) -> None:
            async with gate:
                try:
                    self.histories[code] = await self._pages("intake", f"/v1/dossiers/{code}/history")
                except httpx.HTTPStatusError as error:
                    self.find("1", code, f"its history answers {error.response.status_code}")
                    self.histories[code] = []

        await asyncio.gather(*(one(code) for code in self.ledger.coded))

    def _acts(self) -> None:
        for code, dossier in self.ledger.coded.items():
            events = self.histories[code]
            if [event["sequence"] for event in events] != list(range(1, len(events) + 1)):
                self.find("1", code, f"the sequences are {[event['sequence'] for event in events]}")
                continue
            explained = self._explained(code, dossier, events)
            for event in events:
                if event["sequence"] not in explained and not _by_itself(event, events):
                    what = f"{event['sequence']} {event['type']} is in the history, and nobody was answered for it"
                    self.find("1", code, what)

    def _explained(self, code: str, dossier: Dossier, events: Sequence[dict[str, Any]]) -> set[int]:
        """The sequences of the events that answered acts made; each act is found there once and in its order."""
        found: dict[int, Act] = {}
        at = {event["sequence"]: event for event in events}
        for act in dossier.done():
            if act.version is None:
                continue
            places = [n for n in (act.version, act.version - 1) if n in at and _is(at[n], act)]
            free = [n for n in places if n not in found]
            if not free:
                self.find("1", code, f"{act.op} ({act.mark}) was answered as version {act.version} and is not there")
            else:
                found[free[0]] = act
        last = 0
        for act in dossier.done():
            if act.version is not None:
                continue
            free = [n for n in at if n > last and n not in found and _is(at[n], act)]
            if not free:
                self.find("1", code, f"the line {act.op} ({act.mark}) was answered and is not there")
            else:
                last = free[0]
                found[last] = act
        answered = 0.0
        for sequence in sorted(found):
            act = found[sequence]
            if not act.imported and act.answered < answered:
                self.find("1", code, f"{act.op} at {sequence} stands after an act that was asked for later")
            answered = max(answered, act.asked)
        return set(found)

    def _only_what_was_asked(self, logs: Iterable[LogLine]) -> None:
        known = self.ledger.coded
        for line in logs:
            if line.topic == "lienthong.dossier.v1" and line.sequence == 1 and line.key not in known:
                self.find("1", line.key, "a dossier that nobody was answered for")

    # -- promises 2 and 6: stored means published, in order, the same bytes

    async def _bus(self, logs: Sequence[LogLine]) -> None:
        by_topic: dict[str, list[LogLine]] = defaultdict(list)
        for line in logs:
            by_topic[line.topic].append(line)
        for topic in OWNERS:
            await self._topic(topic, by_topic[topic])

    async def _topic(self, topic: str, lines: Sequence[LogLine]) -> None:
        seen: dict[str, tuple[str, int, bytes]] = {}
        order: dict[str, list[int]] = defaultdict(list)
        partition: dict[str, int] = {}
        for record in await read_topic(self.stack.bootstrap, topic):
            headers = {name: value for name, value in record.headers if name.startswith("ce_") or name == COPY}
            if COPY in headers:
                self.verdict.copies += 1
                continue
            self.verdict.records += 1
            key, event = (record.key or b"").decode(), headers["ce_id"].decode()
            sequence = int(headers["ce_sequence"])
            headers.pop("ce_replay", None)
            content = sha256(repr((sorted(headers.items()), record.value)).encode()).digest()
            if partition.setdefault(key, record.partition) != record.partition:
                self.find("2", key, f"lies on two partitions of {topic}")
            if (before := seen.get(event)) is None:
                seen[event] = (key, sequence, content)
                order[key].append(sequence)
            elif before != (key, sequence, content):
                self.find("2", key, f"{topic}: {event} was published twice with different content")
        for line in lines:
            there = seen.get(line.id)
            if there is None:
                if line.id not in self.lost:
                    self.find("2", line.key, f"{line.sequence} {line.type} is not on {topic}")
            elif there[:2] != (line.key, line.sequence):
                self.find("2", line.key, f"{topic}: {line.id} is {there[:2]}, the log has {line.sequence}")
        for key, sequences in order.items():
            if sequences != sorted(sequences):
                self.find("2", key, f"{topic}: first seen in the order {sequences}")
        for event in seen.keys() - {line.id for line in lines}:
            self.find("2", seen[event][0], f"{topic}: {event} is on the bus and in no log")

    # -- promise 9: told once

    async def _told(self) -> None:
        notices = self.notices = {item["id"]: item for item in await self._pages("notify", "/v1/notices")}
        self.verdict.notices = len(notices)
        for row in await self.connection.fetch("SELECT dossier, act, reason FROM notify.untold"):
            self.untold.setdefault(row["dossier"], {})[row["act"]] = row["reason"]
        superseded = Counter((i["dossier"], i["act"]) for i in notices.values() if i["state"] == "superseded")
        called: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        to: dict[str, set[str]] = defaultdict(set)
        outcome: dict[str, str] = {}
        receipts: dict[str, str] = {}
        for line in lines_of(self.calls):
            if "receipt" in line:
                if line["answer"] == 404:
                    self.find("9", "-", f"the receipt of {line['receipt']} was answered 404")
                elif line["answer"] < 300:
                    receipts[line["receipt"]] = line["status"]
            elif line["outcome"] in ("taken", "again", "refused"):
                called[subject_of(line["text"])].add(line["call"])
                to[line["call"]].add(line["to"])
                outcome[line["call"]] = line["outcome"]
        letters: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        orders = Counter(line["id"] for line in lines_of(self.letters))
        for line in lines_of(self.letters):
            if "text" in line:
                letters[subject_of(line["text"])].add(line["id"])
        for order, times in orders.items():
            if times > 1:
                self.find("9", "-", f"the order {order} was given to the carrier {times} times")
        expected: set[tuple[str, str, str]] = set()
        for code, dossier in self.ledger.coded.items():
            for subject, may_be_overtaken in self._tellings(code):
                expected.add(subject)
                self._once(dossier, subject, may_be_overtaken, called, letters, to, superseded)
        for subject in (called.keys() | letters.keys()) - expected:
            self.find("9", subject[0], f"was told of {subject[1]} ({subject[2]}), which did not happen")
        for identity, status in receipts.items():
            notice = notices.get(identity)
            if notice is None or notice["state"] != status:
                state = "nothing" if notice is None else notice["state"]
                self.find("9", notice["dossier"] if notice else "-", f"{identity} was {status}, notify says {state}")
        for identity, what in outcome.items():
            notice = notices.get(identity)
            right = "failed" if what == "refused" else receipts.get(identity, "sent")
            if notice is not None and notice["state"] != right:
                self.find("9", notice["dossier"], f"{identity} was {what} and is {notice['state']}, not {right}")

    def _tellings(self, code: str) -> list[tuple[tuple[str, str, str], bool]]:
        """What the applicant must be told of, and whether a later act may have overtaken it."""
        events = self.histories[code]
        tellings = []
        for index, event in enumerate(events):
            if (act := kind(event)) in TOLD:
                mark = str(event.get("reason") or event.get("amount") or "-")
                tellings.append(((code, act, mark), overtaken(event, events[index + 1 :])))
        return tellings

    def _story(self, code: str) -> str:
        """What happened to the dossier and what was planned for it, in short."""
        events = " ".join(f"{event['sequence']}:{kind(event)}" for event in self.histories[code])
        notices = " ".join(f"{n['act']}={n['state']}" for n in self.notices.values() if n["dossier"] == code)
        return f"history {events}; notices {notices}; reasons {self.untold.get(code, {})}"

    def _once(
        self,
        dossier: Dossier,
        subject: tuple[str, str, str],
        may_be_overtaken: bool,
        called: dict[tuple[str, str, str], set[str]],
        letters: dict[tuple[str, str, str], set[str]],
        to: dict[str, set[str]],
        superseded: Counter[tuple[str, str]],
    ) -> None:
        code, act, mark = subject
        by_sms, by_post = called.get(subject, set()), letters.get(subject, set())
        wanted = {"sms": (1, 0), "postal": (0, 1), "nobody": (0, 0)}[dossier.reach]
        if (len(by_sms), len(by_post)) != wanted:
            untold = not by_sms and not by_post
            if untold and may_be_overtaken and superseded[(code, act)]:
                superseded[(code, act)] -= 1
                return
            what = f"{act} ({mark}) was told by {len(by_sms)} SMS and {len(by_post)} letters, not {wanted}"
            self.find("9", code, f"{what}; {self._story(code)}")
        if dossier.phone is not None:
            number = sha256(f"+84{dossier.phone[1:]}".encode()).hexdigest()[:16]
            if any(to[identity] != {number} for identity in by_sms):
                self.find("9", code, f"{act} was told to another number")

    # -- promise 7: every transfer has one outcome, every step its turn

    def _routes(self, logs: Iterable[LogLine]) -> None:
        events: dict[str, list[Any]] = defaultdict(list)
        for line in logs:
            if line.topic == "lienthong.transfer.v1":
                events[line.key].append((line.type.removeprefix("transfer."), line.data))
        for code, dossier in self.ledger.coded.items():
            self._route(code, dossier, events.pop(code, []))
        for code in events:
            self.find("7", code, "has transfers and no dossier")

    def _route(self, code: str, dossier: Dossier, events: Sequence[tuple[str, Any]]) -> None:
        history = self.histories[code]
        legs = [leg for event in history if kind(event) == "processing-started" for leg in event["route"]]
        of_step = Counter(leg["step"] for leg in legs)
        steps = sorted(of_step)
        state: dict[str, str] = {}
        step_of: dict[str, int] = {}
        completed: Counter[int] = Counter()
        said: Counter[tuple[str, str]] = Counter()
        over = False
        for what, data in events:
            transfer, step = data["transfer"], data["step"]
            said[(transfer, what)] += 1
            if what == "requested":
                if transfer in state:
                    self.find("7", code, f"the transfer {transfer} was asked for twice")
                before = [earlier for earlier in steps if earlier < step]
                if any(completed[earlier] < of_step[earlier] for earlier in before):
                    self.find("7", code, f"step {step} was asked for before step {before[-1]} was complete")
                step_of[transfer] = step
                self.verdict.transfers += 1
            elif state.get(transfer) not in BEFORE[what]:
                self.find("7", code, f"the transfer {transfer} was {what} after {state.get(transfer)}")
            state[transfer] = what
            if what == "completed":
                completed[step] += 1
                if data["route_complete"]:
                    if over:
                        self.find("7", code, "its route was complete twice")
                    over = True
        if legs and not all(leg["transfer"] in state for leg in legs if leg["step"] == steps[0]):
            self.find("7", code, "its first step was not asked for")
        if not legs and events:
            self.find("7", code, "has transfers and no route")
        if over != (bool(legs) and all(completed[step] == of_step[step] for step in steps)):
            self.find("7", code, f"route complete: {over}, completed legs {dict(completed)} of {dict(of_step)}")
        for earlier, later in pairwise(steps):
            ended = bool(history) and history[-1]["state"] in (3, 8, 9, 10)
            if completed[earlier] == of_step[earlier] and later not in step_of.values() and not ended:
                self.find("7", code, f"step {later} was never asked for")
        final = history[-1]["state"] if history else 0
        if over and final in (1, 2, 4):
            self.find("7", code, f"its route is complete and it stands in {final}")
        if final in (3, 8, 9, 10) and (left := [t for t, s in state.items() if s in OPEN_TRANSFER]):
            self.find("7", code, f"it has ended and the transfers {left} are open")
        for act in dossier.transfers:
            name = TRANSFER_EVENT.get(act.op)
            if act.took_place and name is not None and said[(act.transfer, name)] != 1:
                what = f"{act.op} of {act.transfer} was answered and is there {said[(act.transfer, name)]} times"
                self.find("7", code, what)
            if act.new_transfer is not None and said[(act.new_transfer, "requested")] != 1:
                self.find("7", code, f"{act.op} promised {act.new_transfer}, which was not asked for once")
        answered = Counter(TRANSFER_EVENT.get(act.op) for act in dossier.transfers if act.took_place)
        happened = Counter(what for what, _ in events)
        for name in ("accepted", "completed", "returned", "rerouted"):
            if happened[name] != answered[name]:
                self.find("7", code, f"{happened[name]} times {name}, answered {answered[name]} times")

    # -- promise 8: the figures

    async def _indicators(self) -> None:
        as_of = datetime.now(UTC)
        pausing = {p["code"] for p in yaml.safe_load(self.bundle.read_text())["procedures"] if p["payment_pauses"]}
        first, today = self.began.astimezone(LOCAL).date(), as_of.astimezone(LOCAL).date()
        by_agency: dict[str, list[Dossier]] = defaultdict(list)
        for dossier in self.ledger.dossiers:
            if dossier.code:
                by_agency[dossier.agency].append(dossier)
        for agency, dossiers in sorted(by_agency.items()):
            period = {"agency": agency, "from": first.isoformat(), "to": today.isoformat(), "as_of": as_of.isoformat()}
            live = await self._get("stats", "/v1/indicators", **period)
            cells = own_figures(dossiers, self.histories, pausing, as_of)
            ours = {name: len(codes) for name, codes in cells.items()}
            theirs = {name: figure_in(live, name) for name in cells}
            for name, number in ours.items():
                if theirs[name] != number:
                    named = await self._behind(name, cells[name], period)
                    self.find("8", "-", f"{agency} {name}: stats has {theirs[name]}, the ledger {number}{named}")
            received, resolved, pending = live["received"], live["resolved"], live["pending"]
            if received["total"] != resolved["total"] + pending["total"]:
                self.find("8", "-", f"{agency}: received {received} is not resolved {resolved} + pending {pending}")

    async def _behind(self, cell: str, ours: set[str], period: dict[str, str]) -> str:
        """Which dossiers the two do not agree on."""
        try:
            items = await self._pages("stats", "/v1/indicators/dossiers", cell=cell, **period)
        except httpx.HTTPStatusError:
            return ""
        theirs = {item["code"] for item in items}
        return f"; missing {sorted(ours - theirs)[:5]}, too many {sorted(theirs - ours)[:5]}"

    async def _rebuild(self) -> None:
        """The figures recomputed from the owners' logs are the live ones. A look alone: what differs stays to be looked at."""
        answer = await self.http.post(
            self.stack.url("stats") + "/v1/rebuild", json={"dry_run": True}, headers=self.operator, timeout=120.0
        )
        if answer.status_code != 200:
            self.find("8", "-", f"rebuild answers {answer.status_code}: {answer.text[:200]}")
            return
        report = answer.json()
        for difference in report["differences"][:20]:
            columns = ", ".join(difference["columns"])
            what = f"rebuilt differs from live in {difference['table']}: {difference['is']} {columns}".rstrip()
            self.find("8", difference["key"], what)
        if report["differing"] > 20:
            self.find("8", "-", f"rebuilt differs from live in {report['differing']} places")
        if report["waiting"] or report["incomplete"]:
            self.find(
                "8", "-", f"rebuilt: {report['waiting']} keys not counted at all, {report['incomplete']} incomplete"
            )
        if report["dossiers"] < sum(1 for dossier in self.ledger.dossiers if dossier.code):
            self.find("8", "-", f"rebuilt {report['dossiers']} dossiers: fewer than were accepted")


def family(topic: str) -> str:
    return topic.removeprefix("lienthong.").removesuffix(".v1")


def _is(event: dict[str, Any], act: Act) -> bool:
    """Whether this event may be what the act made."""
    name = kind(event)
    if name != EVENT_OF[act.op]:
        return False
    return act.mark is None or event.get(MARK_IN.get(name, "reason")) == act.mark


def _by_itself(event: dict[str, Any], events: Sequence[dict[str, Any]]) -> bool:
    """What nobody asks for: time raises it, a payment brings the work with it, a route ends."""
    name = kind(event)
    if name in BY_TIME:
        return True
    if name == "resolved":
        return bool(event["by_route"])
    before = events[event["sequence"] - 2] if event["sequence"] > 1 else None
    return name == "processing-started" and before is not None and kind(before) == "paid" and event["previous"] == 4


def overtaken(event: dict[str, Any], later: Sequence[dict[str, Any]]) -> bool:
    """Whether what an act asks for or says was settled by a later one, so that an unsent notice need not go out."""
    match kind(event):
        case "supplement-requested":
            return any(kind(other) == "supplemented" for other in later)
        case "payment-requested":
            return any(kind(other) == "paid" for other in later)
        case "extended":
            return any(other["due_at"] != event["due_at"] for other in later)
    return False


def subject_of(text: str) -> tuple[str, str, str]:
    """The dossier, the act and its mark, which the chaos bundle's templates put into the text."""
    code, act, reason, amount = text.split(";")
    return code, act, next((mark for mark in (reason, amount.replace(".", "")) if mark != "-"), "-")


def lines_of(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = []
    for line in file.read_bytes().splitlines():
        try:
            lines.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue  # cut off by a full disk, and written again behind
    return lines


async def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Everything that lies on a topic, each partition in its order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20)
    await consumer.start()
    found: list[Any] = []
    try:
        partitions = await partitions_of(consumer._client, [topic])
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                found += batch
    finally:
        await consumer.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))
