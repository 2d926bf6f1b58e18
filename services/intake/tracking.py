"""What a citizen sees of a dossier by its code and pin: how it stands, where it is, what is left to do. Nothing personal.

Pure; the page and its throttle are in `tracking_api.py`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from services.intake.deadlines import at_home
from services.intake.dossier import Dossier, Past
from shared.contracts import events as ev
from shared.directory.directory import Directory, DirectoryError

Language = Literal["vi", "en"]

NOT_FOR_CITIZENS: Final = ("dossier.due-soon", "dossier.overdue", "dossier.digitised")
"""What concerns officers alone."""

# The national portal's own words for its ten states.
STATES: Final[Mapping[Language, Mapping[int, str]]] = {
    "vi": {
        1: "Mới đăng ký",
        2: "Được tiếp nhận",
        3: "Không được tiếp nhận",
        4: "Đang xử lý",
        5: "Yêu cầu bổ sung giấy tờ",
        6: "Yêu cầu nộp phí, lệ phí",
        7: "Yêu cầu rút hồ sơ",
        8: "Dừng xử lý",
        9: "Đã xử lý xong",
        10: "Đã trả kết quả",
    },
    "en": {
        1: "Submitted",
        2: "Received",
        3: "Refused at the desk",
        4: "In process",
        5: "Supplement requested",
        6: "Payment requested",
        7: "Withdrawal requested",
        8: "Stopped",
        9: "Resolved",
        10: "Returned",
    },
}

ACTS: Final[Mapping[Language, Mapping[str, str]]] = {
    "vi": {
        "submitted": "Hồ sơ được gửi",
        "received": "Hồ sơ được tiếp nhận",
        "refused": "Hồ sơ không được tiếp nhận",
        "processing-started": "Bắt đầu xử lý",
        "supplement-requested": "Yêu cầu bổ sung",
        "supplemented": "Đã bổ sung đủ",
        "payment-requested": "Yêu cầu nộp phí, lệ phí",
        "paid": "Đã nộp phí, lệ phí",
        "withdrawal-requested": "Yêu cầu rút hồ sơ",
        "withdrawal-refused": "Không chấp nhận rút hồ sơ",
        "withdrawn": "Hồ sơ được rút",
        "stopped": "Dừng xử lý",
        "extended": "Xin lỗi và hẹn lại ngày trả",
        "rescheduled": "Ngày hẹn trả thay đổi theo lịch làm việc mới",
        "resolved": "Có kết quả",
        "returned": "Trả kết quả",
        "rated": "Đánh giá được ghi nhận",
    },
    "en": {
        "submitted": "Submitted",
        "received": "Received",
        "refused": "Refused at the desk",
        "processing-started": "Work began",
        "supplement-requested": "Supplement requested",
        "supplemented": "Supplement complete",
        "payment-requested": "Payment requested",
        "paid": "Paid",
        "withdrawal-requested": "Withdrawal requested",
        "withdrawal-refused": "Withdrawal refused",
        "withdrawn": "Withdrawn",
        "stopped": "Stopped",
        "extended": "Apology with a new date",
        "rescheduled": "New date by the new working calendar",
        "resolved": "Result is there",
        "returned": "Result returned",
        "rated": "Rating recorded",
    },
}

_TODO: Final[Mapping[Language, Mapping[int, str]]] = {
    "vi": {
        1: "Ông/bà chưa phải làm gì. Bộ phận một cửa sẽ kiểm tra và tiếp nhận hồ sơ.",
        2: "Ông/bà chưa phải làm gì. Vui lòng chờ đến ngày hẹn trả.",
        3: "Hồ sơ không được tiếp nhận{reason}. Ông/bà có thể chuẩn bị lại và nộp hồ sơ mới.",
        4: "Ông/bà chưa phải làm gì. Vui lòng chờ đến ngày hẹn trả.",
        5: "Ông/bà cần bổ sung{reason}. Thời gian chờ bổ sung không tính vào thời hạn giải quyết.",
        6: "Ông/bà cần nộp {amount} đồng phí, lệ phí.",
        7: "Ông/bà chưa phải làm gì. Cơ quan đang xem xét yêu cầu rút hồ sơ.",
        8: "Hồ sơ đã dừng{reason}. Không còn việc gì phải làm.",
        9: "{collect}",
        10: "Kết quả đã được trả. {rate}",
    },
    "en": {
        1: "Nothing to do yet. The one-stop desk will check the dossier and take it in.",
        2: "Nothing to do yet. Please wait for the due date.",
        3: "The dossier was refused{reason}. You may prepare it again and send a new one.",
        4: "Nothing to do yet. Please wait for the due date.",
        5: "Please bring what is missing{reason}. This waiting time does not count.",
        6: "Please pay {amount} đồng in fees.",
        7: "Nothing to do yet. The withdrawal is being looked at.",
        8: "The dossier was stopped{reason}. There is nothing left to do.",
        9: "{collect}",
        10: "The result was returned. {rate}",
    },
}

_COLLECT: Final[Mapping[Language, Mapping[ev.ReturnBy, str]]] = {
    "vi": {
        "counter": "Mời ông/bà đến nhận kết quả tại {desk}.",
        "postal": "Kết quả sẽ được gửi đến ông/bà qua bưu chính công ích.",
        "online": "Ông/bà nhận kết quả trên cổng dịch vụ công.",
    },
    "en": {
        "counter": "Please collect the result at {desk}.",
        "postal": "The result will come by public post.",
        "online": "The result is on the public-service portal.",
    },
}

_RATE: Final[Mapping[Language, tuple[str, str]]] = {
    "vi": ("Mời ông/bà đánh giá sự phục vụ.", "Cảm ơn ông/bà đã đánh giá; không còn việc gì phải làm."),
    "en": ("Please rate the service.", "Thank you for your rating; there is nothing left to do."),
}
"""Before and after the citizen has rated."""

# An officer's free text may name a telephone number or a citizen id; nine digits in a row are either.
_PERSONAL_NUMBER: Final = re.compile(r"\+?\d(?:[ .\-]?\d){8,}")


def standing(history: Sequence[Past]) -> list[Past]:
    """The acts that were not taken back, without the corrections."""
    undone = {past.data.undoes for past in history if isinstance(past.data, ev.DossierCorrected)}
    return [past for past in history if past.id not in undone and not isinstance(past.data, ev.DossierCorrected)]


def view(dossier: Dossier, history: Sequence[Past], directory: Directory, lang: Language = "vi") -> dict[str, Any]:
    """`{code, state, received_at, due_at, where, history[{state, at, act}], todo}`; times with an offset."""
    acts = standing(history)
    return {
        "code": dossier.code,
        "state": dossier.state,
        "received_at": None if dossier.received_at is None else at_home(dossier.received_at),
        "due_at": None if dossier.due_at is None else at_home(dossier.due_at),
        "where": where(dossier, directory),
        "history": [
            {
                "state": past.data.state,
                "at": at_home(past.time),
                "act": past.data.short.removeprefix("dossier."),
            }
            for past in acts
            if past.data.short not in NOT_FOR_CITIZENS
        ],
        "todo": todo(dossier, acts, directory, lang),
    }


def rating(acts: Sequence[Past]) -> tuple[ev.DossierRated, datetime] | None:
    """The rating that counts, the last one that stands, and when it was given."""
    given = [(past.data, past.time) for past in acts if isinstance(past.data, ev.DossierRated)]
    return given[-1] if given else None


def where(dossier: Dossier, directory: Directory) -> str:
    """The agencies that work on it now by name; when it was handed to nobody, the one that received it."""
    working = dict.fromkeys(dossier.working[transfer] for transfer in sorted(dossier.working))
    return ", ".join(_name(code, directory) for code in working or (dossier.agency,))


def _name(code: str, directory: Directory) -> str:
    try:
        return directory.agency(code).name
    except DirectoryError:
        return code  # an agency of another site that no bundle names


def todo(dossier: Dossier, acts: Sequence[Past], directory: Directory, lang: Language) -> str:
    """What the citizen does next, in a sentence or two."""
    reason, amount = "", 0
    for past in acts:
        match past.data:
            case ev.DossierSupplementRequested(reason=text) | ev.DossierRefused(reason=text):
                reason = text
            case ev.DossierStopped(reason=text):
                reason = text
            case ev.DossierWithdrawn():
                reason = ""
            case ev.DossierPaymentRequested(amount=asked):
                amount = asked
            case _:
                pass
    said = _PERSONAL_NUMBER.sub("…", reason).rstrip(". ")
    return _TODO[lang][dossier.state].format(
        reason=f": {said}" if said else "",
        amount=f"{amount:,}".replace(",", "." if lang == "vi" else ","),
        rate=_RATE[lang][rating(acts) is not None],
        collect=_COLLECT[lang][dossier.return_by].format(desk=_name(dossier.agency, directory)),
    )
