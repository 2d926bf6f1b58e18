"""CSV as one-stop registers have it (sổ theo dõi hồ sơ): Vietnamese headers, one row a dossier, days as 12/10/2026.

Where it names an agency or a procedure instead of writing its code, the directory is asked which is meant (names.py).
A row becomes the lines that it tells of: the receipt, and the result, its return, a stop or a refusal when the register has
their days. What a register does not say has the value that nearly every one means: at the counter, by a citizen, collected
at the counter. A day without a time (ours): received at 07:30, everything else at 17:00, the usual opening and closing, but never
so that it lies on the wrong side of another act of that day whose time the register has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from deploy.cli.names import Names
from shared.contracts.codes import LOCAL_ZONE
from shared.contracts.folding import fold

HEADERS: Final[Mapping[str, str]] = {
    "ma ho so": "code",
    "so ho so": "code",
    "ma bien nhan": "code",
    "ma thu tuc": "procedure",
    "ma tthc": "procedure",
    "ma thu tuc hanh chinh": "procedure",
    "co quan tiep nhan": "receiving_agency",
    "don vi tiep nhan": "receiving_agency",
    "ma co quan": "receiving_agency",
    "ma don vi": "receiving_agency",
    "co quan giai quyet": "deciding_agency",
    "don vi giai quyet": "deciding_agency",
    "don vi xu ly": "deciding_agency",
    "hinh thuc nop": "channel",
    "hinh thuc tiep nhan": "channel",
    "kenh tiep nhan": "channel",
    "kenh thuc hien": "channel",
    "hinh thuc tra": "return_by",
    "hinh thuc nhan ket qua": "return_by",
    "hinh thuc tra ket qua": "return_by",
    "doi tuong": "applicant.kind",
    "loai doi tuong": "applicant.kind",
    "ho va ten": "applicant.name",
    "ho ten": "applicant.name",
    "ten to chuc ca nhan": "applicant.name",
    "ten to chuc, ca nhan": "applicant.name",
    "nguoi nop": "applicant.name",
    "nguoi nop ho so": "applicant.name",
    "chu ho so": "applicant.name",
    "so dien thoai": "applicant.phone",
    "dien thoai": "applicant.phone",
    "dia chi": "applicant.address",
    "so cccd": "applicant.citizen_id",
    "cccd": "applicant.citizen_id",
    "so cmnd/cccd": "applicant.citizen_id",
    "so dinh danh": "applicant.citizen_id",
    "thanh phan ho so": "components",
    "giay to": "components",
    "ngay nop": "submitted_at",
    "ngay tiep nhan": "received_at",
    "ngay nhan": "received_at",
    "ngay nhan ho so": "received_at",
    "ngay hen tra": "due_at",
    "hen tra": "due_at",
    "ngay hen tra ket qua": "due_at",
    "ngay co ket qua": "resolved_at",
    "ngay ket thuc xu ly": "resolved_at",
    "ngay hoan thanh": "resolved_at",
    "ket qua": "result",
    "ket qua giai quyet": "result",
    "ngay tra": "returned_at",
    "ngay tra ket qua": "returned_at",
    "ngay dung": "stopped_at",
    "ngay tu choi": "refused_at",
    "ly do": "reason",
    "ghi chu": "",
    "stt": "",
    "so thu tu": "",
    "ten thu tuc": "procedure_name",
    "ten thu tuc hanh chinh": "procedure_name",
    "ten tthc": "procedure_name",
    "thu tuc": "procedure_name",
    "linh vuc": "",
    "trang thai": "",
    "nguoi tiep nhan": "",
    "nguoi nhan ket qua": "",
}
"""Headers without tones, and the field that each means; "" for what the other columns say already."""

_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "channel": {
        "truc tiep": "counter",
        "tai quay": "counter",
        "mot cua": "counter",
        "truc tuyen": "online",
        "qua mang": "online",
        "buu chinh": "postal",
        "buu chinh cong ich": "postal",
        "bcci": "postal",
    },
    "applicant.kind": {
        "ca nhan": "citizen",
        "cong dan": "citizen",
        "nguoi dan": "citizen",
        "to chuc": "business",
        "doanh nghiep": "business",
        "ho kinh doanh": "household",
    },
    "result": {
        "dong y": "granted",
        "da giai quyet": "granted",
        "cap": "granted",
        "khong dong y": "denied",
        "tu choi": "denied",
        "khong giai quyet": "denied",
    },
}
_DAY: Final = re.compile(
    r"(?:(\d{1,2})[:hg](\d{2})(?::\d{2})?\s*(?:ngày)?\s*)?(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})"
    r"(?:\s+(\d{1,2})[:hg](\d{2})(?::\d{2})?)?"
)
_DEFAULTS: Final = {"channel": "counter", "return_by": "counter", "applicant.kind": "citizen"}
_RECEIPT: Final = ("procedure", "receiving_agency", "deciding_agency", "channel", "return_by", "due_at")


def is_register(names: Sequence[str]) -> bool:
    """Whether these headers are a register's, not the import's own columns."""
    known = [HEADERS.get(_plain(name)) for name in names]
    return "op" not in names and "received_at" in known and bool({"procedure", "procedure_name"} & {*known})


def unknown_headers(names: Sequence[str]) -> list[str]:
    """Headers that say nothing here: a register with one is refused whole rather than read by halves."""
    return [name for name in names if name.strip() and _plain(name) not in HEADERS]


def lines_of(row: Mapping[str, str], names: Names | None = None) -> Iterator[dict[str, Any]]:
    """The import lines of a register's row, in the order in which they happened; `names`: whose codes a name stands for."""
    given: dict[str, str] = {}
    for name, cell in row.items():
        field = HEADERS.get(_plain(name), "")
        if field and cell.strip():
            given[field] = cell.strip()
    if not given:
        return
    said = _DEFAULTS | {name: _value(name, cell) for name, cell in given.items()}
    said |= _in_order(given, said)
    if "procedure" not in said and "procedure_name" in said:
        said["procedure"] = said["procedure_name"]
    if names is not None:
        said |= names.codes(said)
    ref = given.get("code", "")
    receipt: dict[str, Any] = {"op": "receive", "ref": ref} | {name: said[name] for name in _RECEIPT if name in said}
    if ref:
        receipt["code"] = ref
    receipt["applicant"] = {
        name.partition(".")[2]: value for name, value in said.items() if name.startswith("applicant.")
    }
    if "components" in given:
        papers = dict.fromkeys(part.strip() for part in re.split(r"[;\n]", given["components"]) if part.strip())
        receipt["components"] = [{"name": name} for name in papers]
    reason = given.get("reason", "Theo sổ theo dõi hồ sơ")
    if "refused_at" in said:
        receipt.pop("due_at", None)
        receipt |= {"op": "submit", "submitted_at": said.get("submitted_at", said.get("received_at", ""))}
        yield receipt
        yield {"op": "refuse", "ref": ref, "at": said["refused_at"], "reason": reason}
        return
    if "submitted_at" in said:
        yield {name: value for name, value in receipt.items() if name != "due_at"} | {
            "op": "submit",
            "submitted_at": said["submitted_at"],
        }
        later = {name: said[name] for name in ("received_at", "due_at") if name in said}
        yield {"op": "receive", "ref": ref} | later
    else:
        yield receipt | ({"received_at": said["received_at"]} if "received_at" in said else {})
    if "stopped_at" in said:
        yield {"op": "stop", "ref": ref, "at": said["stopped_at"], "reason": reason}
        return
    resolved = said.get("resolved_at", said.get("returned_at"))
    if resolved is not None:
        yield {"op": "resolution", "ref": ref, "at": resolved, "result": said.get("result", "granted")}
    if "returned_at" in said:
        yield {"op": "return", "ref": ref, "at": said["returned_at"], "by": said["return_by"]}


_ACTS: Final = ("submitted_at", "received_at", "refused_at", "stopped_at", "resolved_at", "returned_at")
"""In the order in which they happen."""


def _in_order(given: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """The instants of a row; one whose time was assumed gives way to the others of its day."""
    found = {name: said[name] for name in _ACTS if name in said and said[name] != given[name]}
    assumed = [name for name in found if ":" not in given[name] and "g" not in given[name] and "h" not in given[name]]
    order = list(found)
    for name, before in zip(order[1:], order, strict=False):
        if name in assumed and found[name][:10] == found[before][:10]:
            found[name] = max(found[name], found[before])
    for name, after in zip(order[-2::-1], order[:0:-1], strict=True):
        if name in assumed and found[name][:10] == found[after][:10]:
            found[name] = min(found[name], found[after])
    return found


def _plain(header: str) -> str:
    return " ".join(fold(header).replace("\n", " ").split()).rstrip(" :*")


def _value(field: str, cell: str) -> str:
    """A cell as the import takes it; what is not understood goes as it stands, and is refused by its pointer."""
    if field.endswith("_at"):
        return _instant(cell, "07:30" if field in ("received_at", "submitted_at") else "17:00")
    values = _VALUES.get("channel" if field == "return_by" else field, {})
    return values.get(_plain(cell), cell)


def _instant(cell: str, usual: str) -> str:
    """`12/10/2026`, `12/10/2026 09:30` or `09:30 12/10/2026` as an instant."""
    found = _DAY.fullmatch(cell.strip())
    if found is None:
        return cell
    hour, minute = (found[1], found[2]) if found[1] else (found[6], found[7])
    if hour is None or minute is None:
        hour, minute = usual.split(":")
    try:
        day = datetime(int(found[5]), int(found[4]), int(found[3]), int(hour), int(minute), tzinfo=LOCAL_ZONE)
    except ValueError:
        return cell
    return day.isoformat()
