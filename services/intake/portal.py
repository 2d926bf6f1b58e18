"""What a public-service portal is told of a dossier, in its own words and codes, and what its answers mean. Pure.

The upsert protocol of the national portal, as one-stop systems speak it: one address takes `TraCuuHoSo` (is it known?),
`DongBoHoSoMC` (the record, inserted or with `isUpdating`) and `CapNhatTienDoHoSoMC` (its progress), each answered with an
`error_code`. Times are `yyyyMMddHHmmss`, local.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from services.intake.dossier import Dossier, Past
from services.intake.tracking import ACTS, STATES
from shared.contracts import events as ev
from shared.contracts.codes import LOCAL_ZONE
from shared.directory.directory import Directory, DirectoryError

QUERY, RECORD, PROGRESS = "TraCuuHoSo", "DongBoHoSoMC", "CapNhatTienDoHoSoMC"

CHANNELS: Final[Mapping[str, str]] = {"counter": "1", "online": "2", "postal": "3"}
"""Of receipt (KenhThucHien) and of the result's return (HinhThuc)."""

KINDS: Final[Mapping[int, Mapping[str, str]]] = {
    1: {"citizen": "1", "business": "2", "household": "2"},
    2: {"citizen": "0", "business": "1", "household": "2"},
}
"""LoaiDoiTuong by the portal's version: the first knows citizens and organisations only."""

ACTORS: Final[Mapping[str, str]] = {
    "desk": "Bộ phận Một cửa",
    "officer": "Cán bộ thụ lý",
    "leader": "Lãnh đạo",
    "portal": "Cổng dịch vụ công",
    "citizen": "Người nộp hồ sơ",
    "admin": "Quản trị",
    "operator": "Vận hành",
    "import": "Hệ thống cũ",
    "system": "Hệ thống",
}
_NOT_TOLD = ("dossier.due-soon", "dossier.overdue")


@dataclass(frozen=True, slots=True)
class Refused:
    """The portal will not take this as it is; the reason is the portal's own."""

    reason: str


def local(instant: datetime | None) -> str:
    return "" if instant is None else instant.astimezone(LOCAL_ZONE).strftime("%Y%m%d%H%M%S")


def query(code: str) -> dict[str, Any]:
    return {"service": QUERY, "mahoso": code, "MaHoSo": code}


def record(
    dossier: Dossier, name: str, history: Sequence[Past], directory: Directory, version: int, *, known: bool
) -> dict[str, Any]:
    """The dossier as it stands. `name`: the applicant's, empty when erased; `known`: the portal has it already."""
    returned = next((past.time for past in reversed(history) if isinstance(past.data, ev.DossierReturned)), None)
    fields = {
        "MaHoSo": dossier.code,
        "MaTTHC": dossier.procedure,
        "TenTTHC": _procedure(dossier.procedure, directory),
        "MaLinhVuc": dossier.field,
        "KenhThucHien": CHANNELS[dossier.channel],
        "ChuHoSo": name,
        "LoaiDoiTuong": KINDS.get(version, KINDS[2])[dossier.applicant_kind],
        "NgayTiepNhan": local(dossier.received_at),
        "NgayHenTra": local(dossier.due_at),
        "TrangThaiHoSo": str(dossier.state),
        "NgayTra": local(returned if dossier.state == 10 else None),
        "HinhThuc": CHANNELS[dossier.return_by],
        "NgayKetThucXuLy": local(dossier.ended_at),
        "DonViXuLy": _agency(next(iter(sorted(dossier.working.values())), dossier.deciding_agency), directory),
        "GhiChu": STATES["vi"][dossier.state],
        "DanhSachHoSoBoSung": _supplements(history),
        "DanhSachGiayToKetQua": _results(history),
    }
    return {"service": RECORD, "isUpdating": known, "data": [fields]}


def _supplements(history: Sequence[Past]) -> list[dict[str, str]]:
    """Every supplement asked for, and when it was complete."""
    asked: list[dict[str, str]] = []
    for past in history:
        if isinstance(past.data, ev.DossierSupplementRequested):
            asked.append(
                {
                    "HoSoBoSungId": str(len(asked) + 1),
                    "NguoiYeuCauBoSung": ACTORS[past.data.by],
                    "NoiDungBoSung": past.data.reason,
                    "NgayBoSung": local(past.time),
                    "NgayTiepNhanBoSung": "",
                }
            )
        elif isinstance(past.data, ev.DossierSupplemented) and asked:
            asked[-1]["NgayTiepNhanBoSung"] = local(past.time)
    return asked


def _results(history: Sequence[Past]) -> list[dict[str, str]]:
    resolved = next((past.data for past in reversed(history) if isinstance(past.data, ev.DossierResolved)), None)
    if resolved is None:
        return []
    name = "Kết quả giải quyết" if resolved.result == "granted" else "Văn bản từ chối giải quyết"
    return [{"TenGiayTo": name, "DuongDanTepTinKetQua": resolved.ref or ""}]


def progress(dossier: Dossier, history: Sequence[Past], after: int, directory: Directory) -> dict[str, Any] | None:
    """What happened to the dossier above version `after`, in order; None when nothing did that concerns a portal."""
    steps = [
        _step(dossier, past, before, directory)
        for before, past in zip([None, *history], history, strict=False)
        if past.sequence > after and past.data.short not in _NOT_TOLD
    ]
    return {"service": PROGRESS, "data": steps} if steps else None


def _step(dossier: Dossier, past: Past, before: Past | None, directory: Directory) -> dict[str, str]:
    data = past.data
    act = data.short.removeprefix("dossier.")
    return {
        "MaHoSo": dossier.code,
        "NguoiXuLy": ACTORS[data.by],
        "ChucDanh": ACTORS[data.by],
        "ThoiDiemXuLy": local(past.time),
        "PhongBanXuLy": _agency(data.agency, directory),
        "NoiDungXuLy": ACTS["vi"].get(act, STATES["vi"][data.state]),
        "TrangThai": str(data.state),
        "NgayBatDau": local(before.time if before is not None else past.time),
        "NgayKetThucTheoQuyDinh": local(data.due_at),
    }


def _procedure(code: str, directory: Directory) -> str:
    try:
        return directory.procedure(code).name
    except DirectoryError:
        return code


def _agency(code: str, directory: Directory) -> str:
    try:
        return directory.agency(code).name
    except DirectoryError:
        return code


def knows(answer: Any) -> bool:
    """Whether the answer to a query holds a record."""
    if not isinstance(answer, Mapping) or _error(answer) is not None:
        return False
    found = answer.get("result", answer.get("data"))
    return bool(found) and found != "0"


def taken(answer: Any) -> Refused | None:
    """None when the portal took what it was told; what it says about an error is its own."""
    if not isinstance(answer, Mapping):
        return None
    return _error(answer)


def _error(answer: Mapping[str, Any]) -> Refused | None:
    code = answer.get("error_code", answer.get("errorCode"))
    if code in (None, "", 0, "0", "00"):
        return None
    said = answer.get("error_message") or answer.get("message") or answer.get("reason") or answer.get("result") or ""
    return Refused(f"{code}: {said}"[:500] if said else str(code)[:500])
