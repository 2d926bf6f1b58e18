"""Random registers: dossiers with late, corrected, paused, extended, withdrawn and refused acts, as events."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import EVENTS, CalendarRef, Component, LimitData

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
AGENCIES = ("H55.242", "H55.243", "H55.17")
PROCEDURES = (("1.001193", "G01-TP01"), ("1.004222", "G13-TN02"))
# Coarse, so that acts, due dates, ends of days and questions fall together now and then.
STEPS = [timedelta(0), timedelta(hours=1), timedelta(hours=7), timedelta(days=1), timedelta(days=6), timedelta(days=20)]
LAGS = [timedelta(0)] * 4 + [timedelta(minutes=5), timedelta(days=3), timedelta(days=45)]


@dataclass(frozen=True)
class Clock:
    """How the dossier stands between two acts."""

    state: int | None = None
    due: datetime | None = None
    paused: bool = False
    back: tuple[int, bool] | None = None  # where a request leads back to
    before_withdrawal: tuple[int, bool] | None = None


@dataclass
class Told:
    """An event with its data as the oracle reads it."""

    type: str
    id: UUID
    time: datetime
    recorded: datetime
    data: dict[str, Any]
    envelope: Envelope


@dataclass
class Life:
    """One dossier being lived."""

    code: str
    agency: str
    rng: random.Random
    mode: str = "live"
    now: datetime = BEGIN
    recorded: datetime = BEGIN
    clock: Clock = field(default_factory=Clock)
    acts: list[tuple[UUID, datetime, Clock]] = field(default_factory=list)  # id, time, how it stood before
    events: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.procedure, self.field_ = rng.choice(PROCEDURES)
        self.deciding = rng.choice((self.agency, rng.choice(AGENCIES)))
        self.channel = rng.choice(("counter", "online", "postal"))
        self.payment_pauses = rng.random() < 0.5
        self.fee = rng.choice((0, 50_000))
        names = rng.sample(("Tờ khai", "Bản đồ", "Hợp đồng"), rng.randint(0, 3))
        self.components = tuple(Component(name=n, digitised=rng.random() < 0.3) for n in names)

    def tell(self, short: str, after: Clock, **extra: Any) -> None:
        model = EVENTS[f"dossier.{short}"]
        data = {
            "agency": self.agency,
            "procedure": self.procedure,
            "previous": self.clock.state,
            "state": after.state,
            "due_at": after.due,
            "paused": after.paused,
            "by": "desk",
            "confidential": False,
            **extra,
        }
        event = model(**data)
        if "components" in data:
            data["components"] = [part.model_dump() for part in data["components"]]
        self.recorded = max(self.recorded, self.now + self.rng.choice(LAGS))
        envelope = Envelope(
            topic="lienthong.dossier.v1",
            id=uuid7(),
            source="/sites/H55/intake",
            type=event.short,
            subject=self.code,
            time=self.now,
            recorded=self.recorded,
            sequence=len(self.events) + 1,
            mode="history" if self.mode == "history" else "live",
            data=event.to_json(),
        )
        self.events.append(Told(event.short, envelope.id, self.now, self.recorded, data, envelope))

    def act(self, short: str, after: Clock, **extra: Any) -> None:
        before = self.clock
        self.tell(short, after, **extra)
        self.acts.append((self.events[-1].id, self.now, before))
        self.clock = after

    def receipt(self, short: str, after: Clock, **extra: Any) -> None:
        self.act(
            short,
            after,
            deciding_agency=self.deciding,
            field=self.field_,
            channel=self.channel,
            return_by="counter",
            applicant_kind="citizen",
            fee=self.fee,
            components=self.components,
            **extra,
        )

    # -- what may happen

    def some_due(self) -> datetime:
        day = (self.now + timedelta(days=self.rng.randint(0, 12))).replace(hour=10, minute=0, second=0)
        return max(day, self.now)

    def submit(self) -> None:
        self.receipt("submitted", Clock(1))

    def receive(self) -> None:
        limit, calendar = LimitData(value=3, unit="working_days"), CalendarRef(agency="H55", version=1)
        self.receipt("received", Clock(2, self.some_due()), limit=limit, calendar=calendar)

    def refuse(self) -> None:
        self.act("refused", replace(self.clock, state=3, paused=False), reason="thiếu")

    def start(self) -> None:
        self.act("processing-started", replace(self.clock, state=4))

    def supplement_request(self) -> None:
        c = self.clock
        assert c.state is not None
        back = (c.state, c.paused)
        self.act("supplement-requested", replace(c, state=5, paused=True, back=back), reason="thiếu")

    def supplement(self) -> None:
        c = self.clock
        assert c.back is not None
        due = c.due
        if due is not None and self.rng.random() < 0.7:
            due += self.rng.choice(STEPS)
        self.act("supplemented", replace(c, state=c.back[0], paused=c.back[1], due=due, back=None))

    def payment_request(self) -> None:
        self.act("payment-requested", replace(self.clock, state=6, paused=self.payment_pauses), amount=50_000)

    def pay(self) -> None:
        c = self.clock
        method = self.rng.choice(("online", "counter"))
        if c.state == 6:
            due = c.due + self.rng.choice(STEPS) if c.paused and c.due is not None else c.due
            self.act("paid", replace(c, state=4, paused=False, due=due), amount=50_000, method=method)
        else:
            self.act("paid", c, amount=50_000, method=method)

    def withdrawal_request(self) -> None:
        c = self.clock
        assert c.state is not None
        after = replace(c, state=7, before_withdrawal=(c.state, c.paused))
        self.act("withdrawal-requested", after, reason="đổi ý")

    def withdrawal_refusal(self) -> None:
        c = self.clock
        assert c.before_withdrawal is not None
        self.act("withdrawal-refused", replace(c, state=c.before_withdrawal[0]), reason="muộn")

    def withdraw(self) -> None:
        self.act("withdrawn", replace(self.clock, state=8, paused=False))

    def stop(self) -> None:
        self.act("stopped", replace(self.clock, state=8, paused=False), reason="dừng")

    def extend(self) -> None:
        c = self.clock
        if c.due is None:
            return
        due = c.due + timedelta(days=self.rng.randint(1, 9))
        self.act("extended", replace(c, due=due), reason="xin lỗi", previous_due_at=c.due)

    def digitise(self) -> None:
        self.act("digitised", self.clock, component="Giấy khác", listed=False)

    def resolve(self) -> None:
        self.act("resolved", replace(self.clock, state=9), result="granted", electronic=True)

    def give_back(self) -> None:
        self.act("returned", replace(self.clock, state=10), returned_by="counter")

    def rate(self) -> None:
        level = self.rng.choice(("very_satisfied", "satisfied", "neutral", "dissatisfied"))
        self.act("rated", self.clock, level=level, complained=self.rng.random() < 0.2)

    def overdue(self) -> None:
        self.tell("overdue", self.clock)

    def correct(self) -> None:
        """The last act never happened; the next may be as early as the one before it."""
        if len(self.acts) < 2 or self.acts[-1][2].state is None:
            return
        identity, _, before = self.acts.pop()
        undone = next(e.type for e in self.events if e.id == identity)
        self.tell("corrected", before, undoes=identity, undone_type=undone, reason="nhầm")
        self.clock = before

    def may(self) -> list[Callable[[], None]]:
        worked = [self.supplement_request, self.payment_request, self.withdrawal_request, self.stop, self.resolve]
        facts = [self.extend, self.digitise, self.overdue]
        first = self.clock.back is not None and self.clock.back[0] == 1
        moves: dict[int | None, list[Callable[[], None]]] = {
            None: [self.submit, self.receive, self.receive],
            1: [*[self.receive] * 3, self.refuse, self.supplement_request, self.withdrawal_request],
            2: [self.start, self.start, self.pay, *worked, *facts],
            3: [self.rate],
            4: [self.resolve, *worked, *facts],
            5: [*[self.supplement] * 2, self.withdrawal_request, self.digitise, self.refuse if first else self.stop],
            6: [*[self.pay] * 2, self.withdrawal_request, self.stop, self.extend],
            7: [self.withdraw, self.withdrawal_refusal, self.extend],
            8: [self.rate],
            9: [self.give_back, self.rate, self.digitise],
            10: [self.rate, self.rate, self.digitise],
        }
        if not first:
            moves[5].append(self.extend)
        allowed = moves[self.clock.state]
        return allowed if self.clock.due is not None else [m for m in allowed if m != self.overdue]

    def live(self, acts: int) -> None:
        for _ in range(acts):
            self.now += self.rng.choice(STEPS)
            if self.acts and self.rng.random() < 0.12:
                self.correct()
            else:
                self.rng.choice(self.may())()


def transfers(seed: int, lives: Sequence[tuple[str, Sequence[Told]]]) -> dict[str, list[list[Told]]]:
    """Legs of some of these dossiers, by code: delivered, and mostly ended in one way or another."""
    rng = random.Random(seed + 1)
    found: dict[str, list[list[Told]]] = {}
    for agency, events in lives:
        code, sequence, recorded = events[0].envelope.subject, 0, BEGIN
        for step in range(1, rng.choice((0, 0, 1, 1, 2)) + 1):
            now = BEGIN + timedelta(days=rng.randint(0, 70), hours=rng.randint(0, 23))
            leg: dict[str, Any] = {
                "transfer": uuid7(),
                "dossier": code,
                "step": step,
                "from": agency,
                "to": rng.choice(AGENCIES),
                "attempt": 1,
                "due_at": now + rng.choice(STEPS),
                "agency": agency,
            }
            ends: tuple[tuple[str, dict[str, Any]], ...] = (
                ("completed", {"result": "granted"}),
                ("returned", {"reason": "thiếu", "need": "supplement"}),
                ("refused", {"reason": "không thuộc thẩm quyền", "next_steps": ("request-again",)}),
                ("recalled", {"reason": "đã rút"}),
            )
            acts: list[Told] = []
            for short, extra in (("delivered", {}), *([rng.choice(ends)] if rng.random() < 0.8 else [])):
                event = EVENTS[f"transfer.{short}"](**leg, **extra)
                recorded, sequence = max(recorded, now + rng.choice(LAGS)), sequence + 1
                envelope = Envelope(
                    topic="lienthong.transfer.v1",
                    id=uuid7(),
                    source="/sites/H55/routing",
                    type=event.short,
                    subject=code,
                    time=now,
                    recorded=recorded,
                    sequence=sequence,
                    mode="live",
                    data=event.to_json(),
                )
                acts.append(Told(event.short, envelope.id, now, recorded, leg, envelope))
                now += timedelta(minutes=1) + rng.choice(STEPS)
            found.setdefault(code, []).append(acts)
    return found


def documents(seed: int) -> list[list[Told]]:
    """The lives of some documents: sent, mostly arrived, and worked on for a while."""
    rng = random.Random(seed + 2)
    found = []
    for number in range(rng.randint(0, 9)):
        now = BEGIN + timedelta(days=rng.randint(0, 70), hours=rng.randint(0, 23))
        name, recorded, lived = f"H55.242,2026-01-01,{number}", BEGIN, list[Told]()
        fixed = {"document": name, "number": str(number), "date": "2026-01-01", "kind": 0, "to": rng.choice(AGENCIES)}
        acts = [
            ("sent", "01", {"title": "Công văn"}),
            *([("arrived", "01", {"title": "Công văn"})] if rng.random() < 0.8 else []),
            *[("accepted", "03", {}), ("started", "05", {}), ("finished", "06", {})][: rng.randint(0, 3)],
        ]
        if rng.random() < 0.2:  # it came from elsewhere: nobody here sent it
            acts = [act for act in acts if act[0] != "sent"]
        sender = rng.choice(AGENCIES)
        for sequence, (short, state, extra) in enumerate(acts, 1):
            data = {**fixed, "from": sender, "state": state, **extra}
            event = EVENTS[f"document.{short}"](**data)
            recorded = max(recorded, now + rng.choice(LAGS))
            envelope = Envelope(
                topic="lienthong.document.v1",
                id=uuid7(),
                source="/sites/H55/routing",
                type=event.short,
                subject=name,
                time=now,
                recorded=recorded,
                sequence=sequence,
                mode="live",
                data=event.to_json(),
            )
            lived.append(Told(event.short, envelope.id, now, recorded, data | {"due_at": None}, envelope))
            now += rng.choice(STEPS)
        found.append(lived)
    return found


def register(seed: int, dossiers: int = 25) -> list[tuple[str, list[Told]]]:
    """Agencies and events of some dossiers; the same seed gives the same register but for the ids."""
    rng = random.Random(seed)
    lives = []
    for number in range(dossiers):
        agency = rng.choice(AGENCIES[:2])
        life = Life(f"{agency}-260101-{number + 1:04}", agency, rng, rng.choice(("live", "live", "history")))
        life.now = BEGIN + timedelta(days=rng.randint(0, 50), hours=rng.randint(0, 23))
        life.live(rng.randint(1, 9))
        lives.append((agency, life.events))
    return lives
