"""A day of today, live: the plan of what desks, officers, a citizen and the portal do on the demo's three sites.

Plain data: each step is one HTTP request and what its answer must be. Names in braces, as `{code:3}`, stand for what an
earlier step saved from its answer. Acts carry no time of their own: they happen when they are asked for.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, Literal

from deploy.demo.names import person_name
from deploy.demo.places import AREA, PROVINCE, WARD, workplaces
from shared.clock.calendar import TZ

Service = Literal["intake", "routing", "notify", "stats"]

SEED = 20250701

CENTRE = "H55.01"
PHAN_DINH_PHUNG, QUAN_TRIEU, PHO_YEN, DINH_HOA, TRUNG_HOI = (
    "H55.201",
    "H55.218",
    WARD,
    "H55.241",
    "H55.242",
)
INSURANCE, POLICE, MILITARY, TAX, LAND, LAND_PHO_YEN = (
    "H55.17",
    "H55.21",
    "H55.22",
    "H55.23",
    "H55.24",
    AREA,
)
DESKS = (PHAN_DINH_PHUNG, QUAN_TRIEU, PHO_YEN, DINH_HOA, TRUNG_HOI, CENTRE)


@dataclass(frozen=True, slots=True)
class Step:
    """One request to a service of a site. `role` and `agency` say whose token it carries (agency None: the whole site).

    `saves` maps a name to the JSON Pointer of a value in the answer. `eventually` maps JSON Pointers to the values that
    the answer has once the events have travelled: a GET with it, or with a pointer that is not there yet, is repeated.
    """

    name: str
    site: str
    service: Service
    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, Any] | None
    role: str
    agency: str | None
    expect: int
    saves: Mapping[str, str] = field(default_factory=dict)
    eventually: Mapping[str, Any] = field(default_factory=dict)


def live_day(now: datetime, seed: int = SEED) -> list[Step]:
    """The steps of the day, in order; about forty dossiers at six desks. `now` (aware) sets the one date that is promised."""
    day = _Day(now, random.Random(seed))  # noqa: S311 - invented people, not secrets
    day.certify_copies()
    day.register_births_from_the_portal()
    day.certify_marital_status()
    day.refuse_a_submission()
    day.send_land_dossiers()
    day.send_life_events()
    day.register_residences()
    day.open_businesses()
    day.assess_a_disability()
    day.withdraw_and_stop()
    day.keep_an_adoption_confidential()
    day.answer_a_petition()
    day.look_at_what_was_told_and_counted()
    return day.steps


@dataclass(frozen=True, slots=True)
class CutDay:
    """What happens around a cut of the ward's line: up to the cut, while it lasts, and when the line is back."""

    before: Sequence[Step]
    meanwhile: Sequence[Step]
    after: Sequence[Step]
    handed_over: int  # transfers that wait for the line


def cut_day(now: datetime, seed: int = SEED + 1) -> CutDay:
    """The ward receives, returns and hands over with its line cut; the land office completes what it had got before."""
    day = _Day(now, random.Random(seed))  # noqa: S311 - invented people, not secrets
    earlier = day.receive_and_start(PHO_YEN, "1.012783")
    work = day.accepted(earlier, LAND)
    day.leg_is(earlier, "accepted")
    before = day.turn_page()
    day.certify_copies(desks=(PHO_YEN,), turns=6)
    waiting = {day.receive_and_start(PHO_YEN, "1.012783"): LAND for _ in range(3)}
    waiting |= {day.receive_and_start(PHO_YEN, "1.012786"): LAND_PHO_YEN for _ in range(2)}
    for number in waiting:
        day.leg_is(number, "sent")
    day.complete(earlier, LAND, work)
    day.leg_is(earlier, "accepted")  # so the ward still reads it: the answer waits on the other side
    meanwhile = day.turn_page()
    for number, office in waiting.items():
        day.answered(number, office, "granted")
    for number in (earlier, *waiting):
        day.reaches(number, 9)
    return CutDay(before, meanwhile, day.turn_page(), len(waiting))


class _Day:
    """The plan as it is written; a dossier is known by its number in the day."""

    def __init__(self, now: datetime, rng: random.Random) -> None:
        self.steps: list[Step] = []
        self._now = now
        self._rng = rng
        self._desks: dict[int, str] = {}
        self._workplaces = workplaces()

    def turn_page(self) -> list[Step]:
        """What has been written since the last time."""
        written, self.steps = self.steps, []
        return written

    # ------------------------------------------------------------------------------------------- journeys

    def certify_copies(self, desks: Sequence[str] = DESKS, turns: int = 12) -> None:
        """Same-day certifications at every desk: in, signed, out."""
        for turn in range(turns):
            number = self._receive(
                desks[turn % len(desks)], "2.000815" if turn % 3 else "2.000884", phone=turn % 2 == 0
            )
            self._resolve(number)
            self._hand_over(number)
            if turn % 4 == 0:
                self._act(number, "desk", "rating", {"level": "very_satisfied"})

    def register_births_from_the_portal(self) -> None:
        """Online submissions, received by the desk, with an electronic result."""
        for desk in (TRUNG_HOI, PHAN_DINH_PHUNG, QUAN_TRIEU):
            number = self._submit(desk, "1.001193")
            self._act(number, "desk", "receive", {})
            self._act(number, "officer", "start", {})
            self._act(number, "desk", "digitisation", {"component": "Giấy chứng sinh"})
            self._resolve(number, electronic=True)
            self._hand_over(number, by="online")

    def certify_marital_status(self) -> None:
        """Three-day work: started today, one of them sent out by post."""
        for desk in (DINH_HOA, QUAN_TRIEU):
            self.receive_and_start(desk, "1.004873")
        number = self._receive(TRUNG_HOI, "1.004873", by_post=True)
        self._act(number, "officer", "start", {})
        self._resolve(number)

    def refuse_a_submission(self) -> None:
        """A submission from the portal that the desk refuses: it was never received."""
        number = self._submit(DINH_HOA, "1.001731")
        self._act(number, "desk", "refuse", {"reason": "Không thuộc thẩm quyền giải quyết của xã"})

    def send_land_dossiers(self) -> None:
        """To the land registration office: granted, returned for a supplement, refused and sent elsewhere, in work."""
        for desk in (PHO_YEN, TRUNG_HOI):
            number = self._receive(desk, "1.012783", by_post=True)
            self._act(number, "officer", "start", {})
            self.answered(number, LAND, "granted")
            self.reaches(number, 9)

        number = self.receive_and_start(PHO_YEN, "1.012784")
        transfer = self.accepted(number, LAND)
        reason = "Bản vẽ tách thửa thiếu chữ ký của chủ sử dụng đất liền kề"
        self._transfer(number, LAND, transfer, "return", {"reason": reason, "need": "supplement"})
        self.leg_is(number, "returned")
        self._act(number, "desk", "supplement-request", {"reason": reason})
        self._act(number, "desk", "supplement", {})
        self._transfer(number, PHO_YEN, transfer, "request-again", {})
        self.accepted(number, LAND)

        number = self.receive_and_start(DINH_HOA, "1.012783")
        transfer = self._arrived(number, LAND)
        elsewhere = "Thửa đất thuộc địa bàn của Chi nhánh Phổ Yên"
        self._transfer(number, LAND, transfer, "refuse", {"reason": elsewhere})
        self.leg_is(number, "refused")
        self._transfer(number, DINH_HOA, transfer, "reroute", {"to": LAND_PHO_YEN, "reason": elsewhere})
        self.answered(number, LAND_PHO_YEN, "granted")
        self.reaches(number, 9)

        number = self.receive_and_start(PHO_YEN, "1.013978")
        self.answered(number, LAND, "granted")
        self.answered(number, TAX, "granted")
        self.accepted(number, LAND)

        number = self.receive_and_start(PHO_YEN, "1.012786")
        self.accepted(number, LAND_PHO_YEN)

    def send_life_events(self) -> None:
        """A birth: the police, then the insurance. A death: both side by side, then the province."""
        number = self.receive_and_start(TRUNG_HOI, "2.002621")
        self.answered(number, POLICE, "granted")
        self.answered(number, INSURANCE, "granted")
        self.reaches(number, 9)

        number = self.receive_and_start(PHAN_DINH_PHUNG, "2.002622")
        for agency in (INSURANCE, POLICE, PROVINCE):
            self.answered(number, agency, "granted")
        self.reaches(number, 9)

    def register_residences(self) -> None:
        """The police decide: one granted, one denied, two at work."""
        for desk, result in ((QUAN_TRIEU, "granted"), (DINH_HOA, "denied")):
            number = self.receive_and_start(desk, "1.004194")
            self.answered(number, POLICE, result)
            self.reaches(number, 9)
        for desk in (TRUNG_HOI, PHAN_DINH_PHUNG):
            number = self.receive_and_start(desk, "1.004222")
            self.accepted(number, POLICE)

        number = self.receive_and_start(TRUNG_HOI, "1.013133")
        self.accepted(number, MILITARY)

    def open_businesses(self) -> None:
        """The fee is asked for and paid before the tax office is asked."""
        for desk in (PHAN_DINH_PHUNG, PHO_YEN):
            number = self._receive(desk, "1.001612")
            self._act(number, "desk", "payment-request", {"amount": 100_000})
            # A payment in 6 moves on to 4, and entering 4 asks for the route's first step.
            self._act(number, "desk", "payment", {"amount": 100_000, "method": "counter"})
            self.answered(number, TAX, "granted")
            self.reaches(number, 9)

    def assess_a_disability(self) -> None:
        """A supplement stops the clock; an apology promises a later date."""
        number = self.receive_and_start(TRUNG_HOI, "1.001699")
        reason = "Bổ sung giấy tờ y tế chứng minh khuyết tật"
        self._act(number, "officer", "supplement-request", {"reason": reason})
        self._act(number, "desk", "supplement", {})
        apology = "Hội đồng xác định mức độ khuyết tật chưa họp; xin lỗi ông/bà và hẹn lại"
        self._act(number, "desk", "extension", {"reason": apology, "due_at": self._closing_in(90)})

        number = self._receive(QUAN_TRIEU, "1.004859")
        self._act(number, "desk", "supplement-request", {"reason": "Thiếu giấy tờ làm căn cứ thay đổi"})

    def withdraw_and_stop(self) -> None:
        """A dossier that its applicant takes back, and one that cannot go on."""
        number = self._receive(DINH_HOA, "1.001731")
        self._act(number, "desk", "withdrawal-request", {"reason": "Người nộp xin rút để nộp tại nơi cư trú"})
        self._act(number, "desk", "withdrawal", {})

        number = self.receive_and_start(PHO_YEN, "1.013225")
        self._act(number, "officer", "stop", {"reason": "Thửa đất đang có tranh chấp"})

    def keep_an_adoption_confidential(self) -> None:
        """A confidential procedure: counted like any other, on no public topic."""
        number = self._receive(CENTRE, "2.001263", phone=False)
        self._act(number, "officer", "start", {})

    def answer_a_petition(self) -> None:
        """A reflection filed through the portal, answered by the commune, rated by its author."""
        text = "Đề nghị niêm yết lại bảng phí, lệ phí tại bộ phận một cửa."
        petition = {"agency": TRUNG_HOI, "kind": "reflection", "text": text}
        self.steps.append(
            Step(
                f"petition to {TRUNG_HOI}", PROVINCE, "intake", "POST", "/v1/petitions", petition, "portal", None, 201,
                saves={"petition": "/id"},
            )
        )  # fmt: skip
        answer = {"text": "Xã đã niêm yết lại bảng phí, lệ phí; cảm ơn góp ý của ông/bà."}
        self._post("petition answered", "/v1/petitions/{petition}/answer", answer, "desk", TRUNG_HOI, PROVINCE)
        rating = {"level": "satisfied"}
        self._post("petition rated", "/v1/petitions/{petition}/rating", rating, "portal", None, PROVINCE)

    def look_at_what_was_told_and_counted(self) -> None:
        """The first dossier's applicant has been told twice; the province's last 24 hours are counted."""
        self.steps += [
            Step(
                "SMS sent for dossier 1", self._home(1), "notify", "GET", "/v1/notices?dossier={code:1}", None, "desk",
                self._desks[1], 200, eventually={"/items/0/state": "sent", "/items/1/state": "sent"},
            ),
            Step(
                "last 24 hours of the province", PROVINCE, "stats", "GET",
                f"/v1/indicators/rolling?agency={PROVINCE}&subtree=true&window=24h", None, "leader", PROVINCE, 200,
                eventually={"/received/total": len(self._desks) - 1},  # all but the one refused at the desk
            ),
        ]  # fmt: skip

    # ---------------------------------------------------------------------------------------------- moves

    def receive_and_start(self, desk: str, procedure: str) -> int:
        number = self._receive(desk, procedure)
        self._act(number, "officer", "start", {})
        return number

    def _receive(self, desk: str, procedure: str, *, phone: bool = True, by_post: bool = False) -> int:
        number = self._number(desk)
        applicant: dict[str, Any] = self._applicant(number, phone)
        if by_post:
            applicant["address"] = f"Tổ {number}, tỉnh Thái Nguyên"
        body = {
            "procedure": procedure,
            "receiving_agency": desk,
            "channel": "counter",
            "applicant": applicant,
            "return_by": "postal" if by_post else "counter",
        }
        self._file(number, "received", "/v1/dossiers", body, "desk", desk)
        return number

    def _submit(self, desk: str, procedure: str) -> int:
        number = self._number(desk)
        body = {
            "procedure": procedure,
            "receiving_agency": desk,
            "channel": "online",
            "applicant": self._applicant(number, phone=True),
            "return_by": "online",
        }
        self._file(number, "submitted", "/v1/submissions", body, "portal", None)
        return number

    def _number(self, desk: str) -> int:
        number = len(self._desks) + 1
        self._desks[number] = desk
        return number

    def _applicant(self, number: int, phone: bool) -> dict[str, Any]:
        applicant = {"kind": "citizen", "name": person_name(self._rng)}
        return applicant | {"phone": f"09860000{number:02d}"} if phone else applicant

    def _file(self, number: int, done: str, path: str, body: Mapping[str, Any], role: str, agency: str | None) -> None:
        name = f"dossier {number} {done}: {body['procedure']} at {body['receiving_agency']}"
        saves = {f"code:{number}": "/code"}
        self.steps.append(Step(name, self._home(number), "intake", "POST", path, body, role, agency, 201, saves))

    def _act(self, number: int, role: str, operation: str, body: Mapping[str, Any]) -> None:
        path = f"/v1/dossiers/{{code:{number}}}/{operation}"
        self._post(f"dossier {number}: {operation}", path, body, role, self._desks[number], self._home(number))

    def _resolve(self, number: int, *, electronic: bool = False) -> None:
        self._act(number, "officer", "resolution", {"result": "granted", "electronic": electronic})

    def _hand_over(self, number: int, by: str = "counter") -> None:
        self._act(number, "desk", "return", {"by": by})

    def _arrived(self, number: int, receiver: str) -> str:
        """The transfer of the dossier that waits at the receiver; the name of its id."""
        saved = f"transfer:{number}:{len(self.steps)}"
        path = f"/v1/transfers?dossier={{code:{number}}}&agency={receiver}&state=delivered"
        self.steps.append(
            Step(
                f"dossier {number} delivered to {receiver}", self._works(receiver, number), "routing", "GET", path, None,
                "officer", receiver, 200, saves={saved: "/items/0/id"},
            )
        )  # fmt: skip
        return saved

    def accepted(self, number: int, receiver: str) -> str:
        transfer = self._arrived(number, receiver)
        self._transfer(number, receiver, transfer, "accept", {})
        return transfer

    def answered(self, number: int, receiver: str, result: str) -> None:
        transfer = self.accepted(number, receiver)
        self._transfer(number, receiver, transfer, "complete", {"result": result})

    def _transfer(self, number: int, agency: str, transfer: str, action: str, body: Mapping[str, Any]) -> None:
        path = f"/v1/transfers/{{{transfer}}}/{action}"
        name = f"dossier {number}: {action} by {agency}"
        site = self._works(agency, number)
        self.steps.append(Step(name, site, "routing", "POST", path, body, "officer", agency, 200))

    def complete(self, number: int, agency: str, transfer: str) -> None:
        self._transfer(number, agency, transfer, "complete", {"result": "granted"})

    def leg_is(self, number: int, state: str) -> None:
        """What home knows of the leg that stands so."""
        desk = self._desks[number]
        path = f"/v1/transfers?dossier={{code:{number}}}&state={state}"
        self.steps.append(
            Step(
                f"dossier {number}: its leg is {state}", self._home(number), "routing", "GET", path, None, "officer",
                desk, 200, eventually={"/items/0/state": state},
            )
        )  # fmt: skip

    def reaches(self, number: int, state: int) -> None:
        path = f"/v1/dossiers/{{code:{number}}}"
        name = f"dossier {number} in state {state}"
        self.steps.append(
            Step(
                name, self._home(number), "intake", "GET", path, None, "desk", self._desks[number], 200,
                eventually={"/state": state},
            )
        )  # fmt: skip

    def _post(self, name: str, path: str, body: Mapping[str, Any], role: str, agency: str | None, site: str) -> None:
        self.steps.append(Step(name, site, "intake", "POST", path, body, role, agency, 200))

    def _home(self, number: int) -> str:
        """The site that owns the dossier."""
        return self._workplaces[self._desks[number]] or PROVINCE

    def _works(self, agency: str, number: int) -> str:
        """The site on which the agency works on it; one without a site of its own does so where it was asked."""
        return self._workplaces[agency] or self._home(number)

    def _closing_in(self, days: int) -> str:
        day = self._now.astimezone(TZ).date() + timedelta(days=days)
        return datetime.combine(day, time(17), TZ).isoformat()


def desks_of(steps: Iterable[Step]) -> set[tuple[str, str, str | None]]:
    """The principals that the steps act as, and on which site: the tokens that the runner needs."""
    return {(step.site, step.role, step.agency) for step in steps}
