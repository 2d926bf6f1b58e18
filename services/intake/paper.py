"""The seven paper forms of a one-stop desk (the circulars on one-stop mechanisms; their numbers changed, their names not).

Pure: a dossier, its history and its applicant give a `Paper`; `printing.py` makes a page or a PDF of it. Vietnamese alone:
these are official papers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal, TypeVar

from services.intake.dossier import Dossier, Past
from services.intake.pages import day, moment, money
from services.intake.tracking import ACTS, STATES, standing
from shared.clock import Unit
from shared.contracts import events as ev
from shared.directory.bundle import ProcedureEntry
from shared.directory.directory import Directory, DirectoryError

Form = Literal["receipt", "supplement", "refusal", "apology", "stop", "control"]

TITLES: Final[Mapping[Form, tuple[str, str]]] = {
    "receipt": ("Giấy tiếp nhận hồ sơ và hẹn trả kết quả", "Receipt with return date"),
    "supplement": ("Phiếu yêu cầu bổ sung, hoàn thiện hồ sơ", "Supplement request"),
    "refusal": ("Phiếu từ chối tiếp nhận, giải quyết hồ sơ", "Refusal to receive"),
    "apology": ("Phiếu xin lỗi và hẹn lại ngày trả kết quả", "Apology with extension"),
    "stop": ("Thông báo dừng giải quyết hồ sơ", "Stop notice"),
    "control": ("Phiếu kiểm soát quá trình giải quyết hồ sơ", "Process control slip"),
}
REGISTER: Final = "Sổ theo dõi hồ sơ"

_RETURN: Final = {
    "counter": "Trực tiếp tại bộ phận một cửa",
    "postal": "Qua bưu chính công ích",
    "online": "Trực tuyến",
}
_CHANNEL: Final = {"counter": "Trực tiếp", "online": "Trực tuyến", "postal": "Bưu chính công ích"}
_WHO: Final = {"citizen": "Ông/bà", "business": "Tổ chức, doanh nghiệp", "household": "Hộ kinh doanh"}
_RESULT: Final = {"granted": "Đồng ý", "denied": "Không đồng ý"}
UNITS: Final = {
    Unit.WORKING_DAYS: "ngày làm việc",
    Unit.HOURS: "giờ làm việc",
    Unit.DAYS: "ngày",
    Unit.MONTHS: "tháng",
}

Event = TypeVar("Event", bound=ev.DossierEvent)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; `title` may be empty."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Paper:
    """A form, ready to be set: what stands on it, from above."""

    title: str
    agency: str
    office: str
    number: str  # the dossier's code
    place_and_day: str
    opening: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    closing: tuple[str, ...] = ()
    signs: tuple[tuple[str, str], ...] = ()
    follow: str = ""  # the address of the dossier's page, for the QR code
    pin: str = ""
    wide: bool = False


def forms_of(dossier: Dossier, history: Sequence[Past]) -> list[Form]:
    """The forms that this dossier's acts give, in the order of the list above."""
    acts = standing(history)
    found: list[Form] = ["receipt"] if dossier.received_at is not None else []
    for form, event in _EVENT_OF.items():
        if _last(acts, event) is not None:
            found.append(form)
    return [*found, "control"]


def paper(
    form: Form,
    dossier: Dossier,
    history: Sequence[Past],
    applicant: Mapping[str, Any] | None,
    directory: Directory,
    *,
    follow: str,
    pin: str,
) -> Paper | None:
    """One form of a dossier; None when nothing that happened gives it. `applicant` None: not shown to this reader."""
    acts = standing(history)
    if form not in forms_of(dossier, history):
        return None
    maker = {
        "receipt": _receipt,
        "supplement": _supplement,
        "refusal": _refusal,
        "apology": _apology,
        "stop": _stop,
        "control": _control,
    }[form]
    return maker(_Given(dossier, acts, applicant, directory, follow, pin))


@dataclass(frozen=True, slots=True)
class _Given:
    """What a form is made from."""

    dossier: Dossier
    acts: Sequence[Past]
    applicant: Mapping[str, Any] | None
    directory: Directory
    follow: str
    pin: str

    @property
    def procedure(self) -> ProcedureEntry:
        return self.directory.procedure(self.dossier.procedure)

    def agency(self, code: str) -> str:
        try:
            return self.directory.agency(code).name
        except DirectoryError:
            return code

    def sheet(self, form: Form, at: datetime, **more: Any) -> Paper:
        return Paper(
            title=TITLES[form][0],
            agency=self.agency(self.dossier.agency),
            office="Bộ phận tiếp nhận và trả kết quả",
            number=self.dossier.code,
            place_and_day=f"{self.agency(self.dossier.agency)}, {in_words(at)}",
            follow=self.follow,
            **more,
        )

    def person(self) -> tuple[tuple[str, str], ...]:
        """Who applies and for what."""
        given = self.applicant or {}
        kind = _WHO[self.dossier.applicant_kind]
        rows = [
            (kind, str(given.get("name", ""))),
            ("Địa chỉ", str(given.get("address", ""))),
            ("Số điện thoại", str(given.get("phone", "")).replace("+84", "0", 1)),
        ]
        return (
            *((label, value) for label, value in rows if value),
            ("Thủ tục hành chính", f"{self.procedure.name} ({self.dossier.procedure})"),
        )


def in_words(at: datetime) -> str:
    """`ngày 12 tháng 10 năm 2026`, the local day."""
    d, m, y = day(at).split("/")
    return f"ngày {d} tháng {m} năm {y}"


def limit_in_words(value: Any, unit: Unit) -> str:
    """`3 ngày làm việc`; a limit of 0 is a same-day one whatever its unit."""
    return "Trong ngày" if value == 0 else f"{f'{value:g}'.replace('.', ',')} {UNITS[unit]}"


def _receipt(given: _Given) -> Paper:
    d = given.dossier
    assert d.received_at is not None
    assert d.limit is not None
    rows = tuple(
        (
            str(number),
            component["name"],
            "Bản số hóa"
            if component.get("digitised")
            else "Dữ liệu dùng lại"
            if component.get("reused")
            else "Bản giấy",
        )
        for number, component in enumerate(d.components, 1)
    )
    fee = f"{money(d.fee)} đồng" + (f" (đã nộp {money(d.paid)} đồng)" if d.paid else "") if d.fee else "Không"
    return given.sheet(
        "receipt",
        d.received_at,
        opening=f"Bộ phận tiếp nhận và trả kết quả {given.agency(d.agency)} đã tiếp nhận hồ sơ của:",
        facts=(
            *given.person(),
            ("Cơ quan giải quyết", given.agency(d.deciding_agency)),
            ("Hình thức nộp", _CHANNEL[d.channel]),
            ("Thời hạn giải quyết", limit_in_words(float(d.limit.value), d.limit.unit)),
            ("Phí, lệ phí", fee),
            ("Tiếp nhận lúc", moment(d.received_at)),
            ("Hẹn trả kết quả lúc", moment(d.due_at)),
            ("Nhận kết quả", _RETURN[d.return_by]),
        ),
        tables=(Table("Thành phần hồ sơ đã nhận", ("STT", "Tên giấy tờ", "Hình thức"), rows),) if rows else (),
        closing=("Khi đến nhận kết quả, đề nghị mang theo giấy này.",),
        signs=(("Người nộp hồ sơ", "Ký, ghi rõ họ tên"), ("Người tiếp nhận hồ sơ", "Ký, ghi rõ họ tên")),
        pin=given.pin,
    )


def _supplement(given: _Given) -> Paper:
    past, data = _found(given.acts, ev.DossierSupplementRequested)
    return given.sheet(
        "supplement",
        past.time,
        opening="Hồ sơ dưới đây chưa đầy đủ. Đề nghị bổ sung, hoàn thiện các nội dung sau:",
        facts=(*given.person(), ("Nội dung cần bổ sung", data.reason), ("Yêu cầu lúc", moment(past.time))),
        closing=(
            "Thời gian chờ bổ sung không tính vào thời hạn giải quyết. Hồ sơ được giải quyết tiếp ngay khi đã bổ sung đủ.",
        ),
        signs=(("Người nộp hồ sơ", "Ký, ghi rõ họ tên"), ("Người hướng dẫn", "Ký, ghi rõ họ tên")),
    )


def _refusal(given: _Given) -> Paper:
    past, data = _found(given.acts, ev.DossierRefused)
    return given.sheet(
        "refusal",
        past.time,
        opening=f"Bộ phận tiếp nhận và trả kết quả {given.agency(given.dossier.agency)} không tiếp nhận hồ sơ sau:",
        facts=(*given.person(), ("Lý do", data.reason), ("Từ chối lúc", moment(past.time))),
        closing=(
            "Ông/bà có thể chuẩn bị lại và nộp hồ sơ mới, hoặc phản ánh, kiến nghị nếu không đồng ý với lý do trên.",
        ),
        signs=(("Người nộp hồ sơ", "Ký, ghi rõ họ tên"), ("Người tiếp nhận hồ sơ", "Ký, ghi rõ họ tên")),
    )


def _apology(given: _Given) -> Paper:
    past, data = _found(given.acts, ev.DossierExtended)
    name = given.agency(given.dossier.deciding_agency)
    return given.sheet(
        "apology",
        past.time,
        opening=f"{name} xin lỗi vì chưa trả được kết quả đúng ngày đã hẹn cho hồ sơ sau:",
        facts=(
            *given.person(),
            ("Lý do", data.reason),
            ("Ngày hẹn cũ", moment(data.previous_due_at)),
            ("Hẹn lại lúc", moment(data.due_at)),
        ),
        closing=("Mong ông/bà thông cảm và đến nhận kết quả theo ngày hẹn mới.",),
        signs=(("Thủ trưởng cơ quan", "Ký tên, đóng dấu"),),
    )


def _stop(given: _Given) -> Paper:
    past, data = _found(given.acts, ev.DossierStopped)
    return given.sheet(
        "stop",
        past.time,
        opening=f"{given.agency(given.dossier.deciding_agency)} thông báo dừng giải quyết hồ sơ sau:",
        facts=(
            *given.person(),
            ("Tiếp nhận lúc", moment(given.dossier.received_at)),
            ("Lý do", data.reason),
            ("Dừng lúc", moment(past.time)),
        ),
        closing=("Giấy tờ đã nộp được trả lại tại bộ phận tiếp nhận và trả kết quả.",),
        signs=(("Thủ trưởng cơ quan", "Ký tên, đóng dấu"),),
    )


def _control(given: _Given) -> Paper:
    """Every act with its time and who did it, beside what was promised. It names no applicant: it stays in the office."""
    d = given.dossier
    rows = tuple(
        (
            str(number),
            moment(past.time),
            _act(past),
            STATES["vi"][past.data.state],
            _BY.get(past.data.by, past.data.by),
            moment(past.data.due_at),
        )
        for number, past in enumerate(given.acts, 1)
    )
    return given.sheet(
        "control",
        d.received_at or d.submitted_at or given.acts[0].time,
        facts=(
            ("Thủ tục hành chính", f"{given.procedure.name} ({d.procedure})"),
            ("Cơ quan giải quyết", given.agency(d.deciding_agency)),
            ("Tiếp nhận lúc", moment(d.received_at)),
            ("Hẹn trả kết quả lúc", moment(d.due_at)),
            ("Kết thúc lúc", moment(d.ended_at)),
        ),
        tables=(
            Table("", ("STT", "Thời điểm", "Việc đã làm", "Trạng thái", "Người thực hiện", "Hẹn trả"), rows),
            Table(
                "Giao nhận giữa các bộ phận",
                ("Bên giao (ký, ghi rõ họ tên)", "Bên nhận (ký, ghi rõ họ tên)", "Thời điểm", "Ghi chú"),
                (("", "", "", ""),) * 3,
            ),
        ),
    )


_BY: Final = {
    "desk": "Bộ phận một cửa",
    "officer": "Cán bộ xử lý",
    "portal": "Cổng dịch vụ công",
    "system": "Hệ thống",
    "import": "Hệ thống cũ",
    "admin": "Quản trị",
    "citizen": "Người nộp hồ sơ",
}
_ACT: Final = {
    "due-soon": "Sắp đến hạn trả",
    "overdue": "Quá hạn trả",
    "digitised": "Số hóa giấy tờ",
}


def _act(past: Past) -> str:
    name = past.data.short.removeprefix("dossier.")
    return _ACT.get(name) or ACTS["vi"].get(name, name)


# ---------------------------------------------------------------------------------------------- the register


def register(
    rows: Sequence[tuple[Dossier, Mapping[str, Any] | None]],
    agency: str,
    since: date,
    until: date,
    directory: Directory,
    today: datetime,
) -> Paper:
    """The register (sổ theo dõi hồ sơ) of what an agency received from `since` to `until`, both days inside."""
    lines = tuple(
        (
            str(number),
            d.code,
            _procedure_name(d.procedure, directory),
            str((applicant or {}).get("name", "")),
            _CHANNEL[d.channel],
            moment(d.received_at),
            moment(d.due_at),
            moment(d.ended_at),
            STATES["vi"][d.state],
        )
        for number, (d, applicant) in enumerate(rows, 1)
    )
    header = (
        "STT",
        "Mã hồ sơ",
        "Thủ tục",
        "Người nộp",
        "Hình thức",
        "Tiếp nhận",
        "Hẹn trả",
        "Có kết quả",
        "Trạng thái",
    )
    name = directory.agency(agency).name
    return Paper(
        title=REGISTER,
        agency=name,
        office="Bộ phận tiếp nhận và trả kết quả",
        number=f"Từ ngày {day(since)} đến ngày {day(until)}",
        place_and_day=f"{name}, {in_words(today)}",
        facts=(("Số hồ sơ", str(len(lines))),),
        tables=(Table("", header, lines),),
        wide=True,
    )


def _procedure_name(code: str, directory: Directory) -> str:
    try:
        return directory.procedure(code).name
    except DirectoryError:
        return code


# ------------------------------------------------------------------------------------------------- the events

_EVENT_OF: Final[Mapping[Form, type[ev.DossierEvent]]] = {
    "supplement": ev.DossierSupplementRequested,
    "refusal": ev.DossierRefused,
    "apology": ev.DossierExtended,
    "stop": ev.DossierStopped,
}


def _last(acts: Sequence[Past], kind: type[Event]) -> tuple[Past, Event] | None:
    return next(((past, past.data) for past in reversed(acts) if isinstance(past.data, kind)), None)


def _found(acts: Sequence[Past], kind: type[Event]) -> tuple[Past, Event]:
    found = _last(acts, kind)
    assert found is not None  # forms_of said so
    return found
