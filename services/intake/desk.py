"""What a desk's pages ask for and how it is read: the fields of each operation, in words, and forms as bodies of acts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from services.intake import acts
from services.intake.dossier import ENDED, Dossier
from shared.contracts.codes import LOCAL_ZONE
from shared.directory.bundle import ProcedureEntry
from shared.web.problem import Problem, pointer_of

Model = TypeVar("Model", bound=BaseModel)

Kind = Literal["text", "money", "instant", "choice", "flag", "component"]
Words = tuple[str, str]
"""In Vietnamese and in English."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an operation's form."""

    name: str
    kind: Kind
    words: Words
    choices: tuple[tuple[str, Words], ...] = ()
    required: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as a desk sees it: what it is called, what it asks, what it says when it is done."""

    name: str
    words: Words
    done: Words
    fields: tuple[Field, ...] = ()


CHANNELS: Final = (
    ("counter", ("Tại quầy", "At the counter")),
    ("online", ("Trực tuyến", "Online")),
    ("postal", ("Bưu chính công ích", "By post")),
)
KINDS: Final = (
    ("citizen", ("Công dân", "Citizen")),
    ("business", ("Tổ chức, doanh nghiệp", "Organisation or business")),
    ("household", ("Hộ kinh doanh", "Household business")),
)
WISHES: Final = (
    ("sms", ("Tin nhắn", "Text message")),
    ("postal", ("Thư qua bưu chính", "Letter")),
    ("required", ("Chỉ việc bắt buộc phải báo", "Only what they must be told")),
)
LEVELS: Final = (
    ("very_satisfied", ("Rất hài lòng", "Very satisfied")),
    ("satisfied", ("Hài lòng", "Satisfied")),
    ("neutral", ("Bình thường", "Neutral")),
    ("dissatisfied", ("Không hài lòng", "Dissatisfied")),
)
_REASON: Final = Field("reason", "text", ("Lý do", "Reason"))

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("receive", ("Tiếp nhận hồ sơ", "Receive"), ("Đã tiếp nhận hồ sơ.", "The dossier was received.")),
    Operation("refuse", ("Từ chối tiếp nhận", "Refuse"), ("Đã từ chối hồ sơ.", "The dossier was refused."), (_REASON,)),
    Operation("start", ("Bắt đầu xử lý", "Start the work"), ("Đã bắt đầu xử lý.", "The work has begun.")),
    Operation(
        "supplement-request",
        ("Yêu cầu bổ sung", "Ask for a supplement"),
        ("Đã yêu cầu bổ sung; thời hạn tạm dừng.", "A supplement was asked for; the clock stands still."),
        (Field("reason", "text", ("Nội dung cần bổ sung", "What is missing")),),
    ),
    Operation(
        "supplement", ("Đã bổ sung đủ", "Supplement complete"), ("Đã ghi nhận bổ sung.", "The supplement was recorded.")
    ),
    Operation(
        "payment-request",
        ("Yêu cầu nộp phí, lệ phí", "Ask for payment"),
        ("Đã yêu cầu nộp phí.", "Payment was asked for."),
        (Field("amount", "money", ("Số tiền (đồng)", "Amount (đồng)")),),
    ),
    Operation(
        "payment",
        ("Thu phí, lệ phí", "Take a payment"),
        ("Đã ghi nhận khoản nộp.", "The payment was recorded."),
        (
            Field("amount", "money", ("Số tiền (đồng)", "Amount (đồng)")),
            Field("method", "choice", ("Cách nộp", "Paid"), CHANNELS),
        ),
    ),
    Operation(
        "extension",
        ("Xin lỗi và hẹn lại ngày trả", "Apologise and extend"),
        ("Đã hẹn lại ngày trả.", "There is a new due date."),
        (_REASON, Field("due_at", "instant", ("Hẹn lại lúc", "New due date"))),
    ),
    Operation(
        "digitisation",
        ("Số hóa giấy tờ", "Digitise a paper"),
        ("Đã ghi nhận số hóa.", "The digitised paper was recorded."),
        (Field("component", "component", ("Giấy tờ", "Paper")),),
    ),
    Operation(
        "resolution",
        ("Có kết quả giải quyết", "Resolve"),
        ("Đã có kết quả.", "The dossier is resolved."),
        (
            Field(
                "result",
                "choice",
                ("Kết quả", "Result"),
                (("granted", ("Đồng ý", "Granted")), ("denied", ("Không đồng ý", "Denied"))),
            ),
            Field("electronic", "flag", ("Kết quả điện tử", "Electronic result"), required=False),
        ),
    ),
    Operation(
        "return",
        ("Trả kết quả", "Return the result"),
        ("Đã trả kết quả.", "The result was returned."),
        (Field("by", "choice", ("Cách trả", "Returned"), CHANNELS),),
    ),
    Operation(
        "rating",
        ("Ghi đánh giá của người nộp", "Record the applicant's rating"),
        ("Đã ghi nhận đánh giá.", "The rating was recorded."),
        (
            Field("level", "choice", ("Mức độ hài lòng", "How satisfied"), LEVELS),
            Field("complained", "flag", ("Có phản ánh, kiến nghị", "There was a complaint"), required=False),
            Field("comment", "text", ("Góp ý", "Comment"), required=False),
        ),
    ),
    Operation(
        "withdrawal-request",
        ("Yêu cầu rút hồ sơ", "Ask to withdraw"),
        ("Đã ghi nhận yêu cầu rút.", "The wish to withdraw was recorded."),
        (_REASON,),
    ),
    Operation("withdrawal", ("Cho rút hồ sơ", "Let withdraw"), ("Hồ sơ đã được rút.", "The dossier was withdrawn.")),
    Operation(
        "withdrawal-refusal",
        ("Không chấp nhận rút", "Refuse the withdrawal"),
        ("Đã từ chối yêu cầu rút.", "The withdrawal was refused."),
        (_REASON,),
    ),
    Operation("stop", ("Dừng giải quyết", "Stop"), ("Đã dừng hồ sơ.", "The dossier was stopped."), (_REASON,)),
    Operation(
        "correction",
        ("Hủy thao tác vừa nhập sai", "Undo the last act (a mistake)"),
        ("Đã hủy thao tác sai.", "The mistake was undone."),
        (_REASON,),
    ),
)
BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}

FORM_AFTER: Final = {
    "receive": "receipt",
    "new": "receipt",
    "refuse": "refusal",
    "supplement-request": "supplement",
    "extension": "apology",
    "stop": "stop",
}
"""The paper that is printed when an operation is done."""

WARNINGS: Final[Mapping[str, Words]] = {
    "extension-late": (
        "Việc hẹn lại được ghi nhận sau hạn cho phép (phải trước ngày trả ít nhất một ngày).",
        "The extension came too late (it is due at least a day before the due date).",
    ),
    "extension-repeated": ("Hồ sơ đã được hẹn lại trước đó.", "This dossier was extended before."),
    "supplement-repeated": (
        "Hồ sơ đã bị yêu cầu bổ sung hơn một lần; chỉ số tính là trễ hạn.",
        "This is not the first supplement request; the index counts the dossier late.",
    ),
}


def offered(dossier: Dossier, may: Sequence[str]) -> list[Operation]:
    """The operations that this state allows and this role may do, in the order of the day; `may`: the role's operations."""
    allowed = [op for op in dossier.allowed() if op in may]
    if "correction" in may and dossier.state not in (10,) and dossier.sequence > 1:
        allowed.append("correction")
    return [operation for operation in OPERATIONS if operation.name in allowed]


def likely(dossier: Dossier, operations: Sequence[Operation]) -> list[str]:
    """The operations that a desk most probably wants now: they stand first, opened."""
    by_state = {1: "receive", 2: "start", 4: "resolution", 5: "supplement", 6: "payment", 7: "withdrawal", 9: "return"}
    wanted = by_state.get(dossier.state, "rating" if dossier.state in ENDED else "")
    return [operation.name for operation in operations if operation.name == wanted]


# --------------------------------------------------------------------------------------------- forms as bodies


class FormFault(Exception):
    """What was filled in cannot be taken: a sentence for each field, by its name ("" the whole form)."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = dict(faults)


_FAULTS: Final[Mapping[str, str]] = {
    "phone": "Đây không phải số điện thoại Việt Nam.",
    "citizen_id": "Số định danh gồm 9 hoặc 12 chữ số.",
    "amount": "Số tiền là số nguyên, tính bằng đồng.",
    "at": "Ngày giờ chưa đúng.",
    "due_at": "Ngày giờ chưa đúng.",
}
_REFUSALS: Final[Mapping[str, str]] = {
    "not-later": "Ngày hẹn lại phải sau ngày hẹn hiện tại.",
    "time-ahead": "Thời điểm này ở tương lai.",
    "time-goes-back": "Thời điểm này trước việc gần nhất của hồ sơ.",
    "time-too-far-back": "Thời điểm này đã quá lâu; vai trò này không ghi lùi được như vậy.",
    "procedure-not-in-force": "Thủ tục không có hiệu lực vào ngày này.",
    "agency-not-in-force": "Cơ quan không hoạt động vào ngày này.",
    "unknown-agency": "Không có cơ quan với mã này.",
    "same-agency": "Phản ánh này đang ở cơ quan đó.",
    "component-twice": "Một giấy tờ được ghi hai lần.",
    "no-due-date": "Không tính được ngày hẹn trả theo lịch làm việc.",
}


CHANGED: Final[Words] = (
    "Biểu mẫu này đã được gửi với nội dung khác. Kiểm tra rồi gửi lại.",
    "This form was sent with other content before. Check it and send it again.",
)
"""Said of a form whose key was used with other content."""


def faults_of(problem: Problem) -> dict[str, str]:
    """What a problem says of each field, by its name."""
    return {each.pointer.rpartition("/")[2]: each.detail for each in problem.errors}


def in_words(faults: Mapping[str, str], lang: str, code: str = "") -> dict[str, str]:
    """What is wrong with each field, for whom filled it in; `code`: the refusal that names them, if one does."""
    if lang == "en":
        return {
            name: "Please fill this in." if said == "missing" else f"Not valid: {said}" for name, said in faults.items()
        }
    return {
        name: "Cần điền mục này." if said == "missing" else _REFUSALS.get(code) or _FAULTS.get(name, "Chưa hợp lệ.")
        for name, said in faults.items()
    }


def act_of(operation: str, form: Mapping[str, list[str]]) -> acts.Act:
    """The body of an operation from its form. Raises FormFault."""
    given: dict[str, Any] = {}
    for field in BY_NAME[operation].fields:
        values = form.get(field.name)
        if values is not None:
            given[field.name] = _read(field.kind, values[0])
    if "at" in form:
        given["at"] = _instant(form["at"][0])
    if operation == "correction":
        given["undoes"] = form.get("undoes", [""])[0]
    return validated(acts.BODIES[operation], given)


def new_of(procedure: ProcedureEntry, form: Mapping[str, list[str]]) -> acts.NewDossier:
    """The receipt of a dossier from its form: the components that were ticked, and one more named by hand."""
    one = {name: values[0] for name, values in form.items()}
    digitised = set(form.get("digitised", ()))
    names = [c.name for c in procedure.components if c.name in form.get("component", ())]
    names += [name for name in form.get("other_component", ()) if name not in names]
    return validated(
        acts.NewDossier,
        {
            "procedure": procedure.code,
            "channel": one.get("channel"),
            "return_by": one.get("return_by"),
            "receiving_agency": one.get("receiving_agency"),
            **({"deciding_agency": one["deciding_agency"]} if "deciding_agency" in one else {}),
            "applicant": {
                name: one[name]
                for name in ("kind", "name", "phone", "address", "citizen_id", "language", "notify")
                if name in one
            },
            "components": [{"name": name, "digitised": name in digitised} for name in names],
        },
    )


def _read(kind: Kind, text: str) -> Any:
    if kind == "money":
        digits = text.replace(".", "").replace(",", "").replace(" ", "")
        return int(digits) if digits.isascii() and digits.isdigit() else text
    if kind == "instant":
        return _instant(text)
    return text in ("true", "on") if kind == "flag" else text


def _instant(text: str) -> str:
    """A browser's local date and time as an instant; what is none goes on as it is, and is refused by its name."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (found.replace(tzinfo=LOCAL_ZONE) if found.tzinfo is None else found).isoformat()


def validated(model: type[Model], given: Mapping[str, Any]) -> Model:
    """The body that a form was read as. Raises FormFault."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = {}
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            name = pointer_of(each["loc"]).rpartition("/")[2]
            missing = each["type"] in ("missing", "string_too_short")
            faults[name] = "missing" if missing else str(each["msg"]).removeprefix("Value error, ")
        raise FormFault(faults) from None
