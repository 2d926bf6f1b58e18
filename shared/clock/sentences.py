"""The explanation of a due date in words that a citizen understands, Vietnamese or English."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from shared.clock.calendar import Rule, local
from shared.clock.deadline import Deadline, Interval, Limit, Unit

Language = Literal["vi", "en"]

_TEXTS: Final[Mapping[Language, Mapping[Rule, str]]] = {
    "vi": {
        "working-day": "{when}: ngày làm việc, tính {amount}.",
        "weekend": "{when}: ngày nghỉ hằng tuần, không tính.",
        "holiday": "{when}: ngày nghỉ lễ, tết, không tính.",
        "closed": "{when}: cơ quan nghỉ theo lịch riêng, không tính.",
        "open": "{when}: cơ quan làm việc theo lịch riêng, tính {amount}.",
        "swapped": "{when}: ngày làm bù (hoán đổi), tính {amount}.",
        "receipt-only": "{when}: chỉ tiếp nhận hồ sơ, không tính.",
        "receipt-day": "{when}: ngày tiếp nhận, không tính.",
        "resume-day": "{when}: ngày hoàn thành bổ sung, không tính.",
        "same-day": "{when}: giải quyết trong ngày.",
        "cut-off": "{when}: hồ sơ đến sau giờ nhận trong ngày, chuyển sang ngày làm việc tiếp theo.",
        "off-shift": "{when}: ngoài giờ làm việc, không tính.",
        "calendar-days": "{when}: tính {amount}, kể cả ngày nghỉ.",
        "calendar-months": "{when}: tính {amount}, kể cả ngày nghỉ.",
        "rollover": "{when}: ngày cuối rơi vào ngày nghỉ, hạn chuyển sang ngày làm việc tiếp theo.",
        "pause": "{when}: tạm dừng để chờ bổ sung, không tính.",
        "kept": "{when}: thời hạn giữ nguyên theo hệ thống cũ.",
        "extension": "{when}: thời gian gia hạn theo thư xin lỗi và hẹn lại ngày trả.",
        "overdue": "{when}: đã quá hạn trả.",
    },
    "en": {
        "working-day": "{when}: working time, counts {amount}.",
        "weekend": "{when}: weekly day off, not counted.",
        "holiday": "{when}: public holiday, not counted.",
        "closed": "{when}: the agency is closed, not counted.",
        "open": "{when}: the agency is open by its own calendar, counts {amount}.",
        "swapped": "{when}: swapped working day, counts {amount}.",
        "receipt-only": "{when}: dossiers are only taken in, not counted.",
        "receipt-day": "{when}: day of receipt, not counted.",
        "resume-day": "{when}: day on which the supplement was completed, not counted.",
        "same-day": "{when}: handled on the same day.",
        "cut-off": "{when}: received too late for the same day, moved to the next working day.",
        "off-shift": "{when}: outside working hours, not counted.",
        "calendar-days": "{when}: counts {amount}, days off included.",
        "calendar-months": "{when}: counts {amount}, days off included.",
        "rollover": "{when}: the last day is a day off, the due date moves to the next working day.",
        "pause": "{when}: the clock stands still, not counted.",
        "kept": "{when}: the due date of the old system was kept.",
        "extension": "{when}: extended, with an apology and a new date.",
        "overdue": "{when}: past the due date.",
    },
}

_UNITS: Final[Mapping[Language, Mapping[Unit, tuple[str, str]]]] = {
    "vi": {
        Unit.WORKING_DAYS: ("ngày làm việc", "ngày làm việc"),
        Unit.HOURS: ("giờ làm việc", "giờ làm việc"),
        Unit.DAYS: ("ngày", "ngày"),
        Unit.MONTHS: ("tháng", "tháng"),
    },
    "en": {
        Unit.WORKING_DAYS: ("working day", "working days"),
        Unit.HOURS: ("working hour", "working hours"),
        Unit.DAYS: ("day", "days"),
        Unit.MONTHS: ("month", "months"),
    },
}

_DUE: Final[Mapping[Language, str]] = {"vi": "Hẹn trả kết quả: {due}.", "en": "Due: {due}."}
_PROVISIONAL: Final[Mapping[Language, str]] = {
    "vi": "Lịch nghỉ hoán đổi năm {year} chưa được công bố; ngày hẹn trả tính theo lịch hiện có.",
    "en": "The swapped working days of {year} are not decreed yet; the due date is by what is known.",
}
# Told by the minute even when the limit counts days: the citizen knows the act by its time.
_TOLD_BY_TIME: Final[frozenset[Rule]] = frozenset({"pause", "kept", "extension", "overdue", "off-shift"})


def sentences(deadline: Deadline, limit: Limit, lang: Language = "vi") -> list[str]:
    """One sentence per interval of `explain`, then the due instant, and a warning for a provisional year."""
    told = [
        _TEXTS[lang][interval.rule].format(
            when=_when(interval, limit.unit, lang), amount=_amount(interval.amount, limit.unit, lang)
        )
        for interval in deadline.explain
    ]
    told.append(_DUE[lang].format(due=_time(deadline.due_at, lang)))
    if deadline.provisional_year is not None:
        told.append(_PROVISIONAL[lang].format(year=deadline.provisional_year))
    return told


def _amount(amount: Decimal, unit: Unit, lang: Language) -> str:
    number = f"{amount.normalize():f}"
    one, many = _UNITS[lang][unit]
    return f"{number.replace('.', ',') if lang == 'vi' else number} {one if amount == 1 else many}"


def _date(instant: datetime) -> str:
    there = local(instant)
    return f"{there.day:02}/{there.month:02}/{there.year:04}"


def _time(instant: datetime, lang: Language) -> str:
    return f"{local(instant):%H:%M}{' ngày ' if lang == 'vi' else ' on '}{_date(instant)}"


def _when(interval: Interval, unit: Unit, lang: Language) -> str:
    # The end is outside: a stretch up to midnight ends on the day before.
    first, last = _date(interval.start), _date(max(interval.start, interval.end - timedelta(microseconds=1)))
    by_time = interval.rule in _TOLD_BY_TIME or (unit is Unit.HOURS and interval.counted)
    if by_time and first == last:
        start, end = f"{local(interval.start):%H:%M}", f"{local(interval.end):%H:%M}"
        return f"{start}-{end} ngày {first}" if lang == "vi" else f"{start}-{end} on {first}"
    if by_time:
        start, end = _time(interval.start, lang), _time(interval.end, lang)
        return f"Từ {start} đến {end}" if lang == "vi" else f"From {start} to {end}"
    if first == last:
        return f"Ngày {first}" if lang == "vi" else first
    return f"Từ ngày {first} đến ngày {last}" if lang == "vi" else f"From {first} to {last}"
