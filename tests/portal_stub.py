"""A portal for the tests: it takes what the upsert protocol allows, and complains of everything else.

It stands for the national portal's side of `services/intake/portal.py`: one address, three services, an `error_code` in
each answer. What breaks the protocol is in `complaints`, whoever asks last: a test expects none.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.serving import HttpServer, listen

RECORD = frozenset(
    [
        "MaHoSo",
        "MaTTHC",
        "TenTTHC",
        "MaLinhVuc",
        "KenhThucHien",
        "ChuHoSo",
        "LoaiDoiTuong",
        "NgayTiepNhan",
        "NgayHenTra",
        "TrangThaiHoSo",
        "NgayTra",
        "HinhThuc",
        "NgayKetThucXuLy",
        "DonViXuLy",
        "GhiChu",
        "DanhSachHoSoBoSung",
        "DanhSachGiayToKetQua",
    ]
)
STEP = frozenset(
    [
        "MaHoSo",
        "NguoiXuLy",
        "ChucDanh",
        "ThoiDiemXuLy",
        "PhongBanXuLy",
        "NoiDungXuLy",
        "TrangThai",
        "NgayBatDau",
        "NgayKetThucTheoQuyDinh",
    ]
)
TIMES = (
    "NgayTiepNhan",
    "NgayHenTra",
    "NgayTra",
    "NgayKetThucXuLy",
    "ThoiDiemXuLy",
    "NgayBatDau",
    "NgayKetThucTheoQuyDinh",
)
_TIME = re.compile(r"(\d{14})?")


@dataclass
class Portal:
    """What the portal knows; `down` is the status that it answers to everything, `refuse` codes with a reason."""

    unit: str
    secret: str | None = None
    down: int | None = None
    drop_answers: int = 0  # so many calls are taken and then answered by an error: whoever calls does not know
    refuse: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)  # service, dossier
    complaints: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/sync", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        if self.down is not None:
            return JSONResponse({}, self.down)
        if self.secret is not None and request.headers.get("authorization") != f"Bearer {self.secret}":
            return JSONResponse({}, 401)
        if body.get("madonvi") != self.unit:
            self.complaints.append(f"unit {body.get('madonvi')}")
        answer = self._served(body)
        if self.drop_answers:
            self.drop_answers -= 1
            return JSONResponse({}, 502)
        return JSONResponse(answer)

    def _served(self, body: dict[str, Any]) -> dict[str, Any]:
        match body.get("service"):
            case "TraCuuHoSo":
                code = body["MaHoSo"]
                self.calls.append(("query", code))
                return {"error_code": "0", "result": [self.records[code]] if code in self.records else []}
            case "DongBoHoSoMC":
                (record,) = body["data"]
                return self._record(record, body["isUpdating"])
            case "CapNhatTienDoHoSoMC":
                return self._progress(body["data"])
            case other:
                self.complaints.append(f"service {other}")
                return {"error_code": "99"}

    def _record(self, record: dict[str, Any], updating: bool) -> dict[str, Any]:
        code = record["MaHoSo"]
        self.calls.append(("update" if updating else "insert", code))
        if record.keys() != RECORD:
            self.complaints.append(f"{code}: fields {sorted(record.keys() ^ RECORD)}")
        self._times(code, record)
        if code in self.refuse:
            return {"error_code": "-1", "error_message": self.refuse[code]}
        if updating != (code in self.records):
            self.complaints.append(f"{code}: isUpdating {updating}")
            return {"error_code": "-2", "error_message": "Hồ sơ đã tồn tại hoặc chưa có"}
        self.records[code] = record
        return {"error_code": "0"}

    def _progress(self, steps: list[dict[str, str]]) -> dict[str, Any]:
        for step in steps:
            code = step["MaHoSo"]
            self.calls.append(("progress", code))
            if step.keys() != STEP:
                self.complaints.append(f"{code}: fields {sorted(step.keys() ^ STEP)}")
            self._times(code, step)
            if code not in self.records:
                self.complaints.append(f"{code}: progress before the record")
            known = self.steps.setdefault(code, [])
            if step in known:
                continue  # at least once
            if known and step["ThoiDiemXuLy"] < known[-1]["ThoiDiemXuLy"]:
                self.complaints.append(f"{code}: {step['NoiDungXuLy']} out of order")
            known.append(step)
        return {"error_code": "0"}

    def _times(self, code: str, fields: dict[str, Any]) -> None:
        for name in TIMES:
            if name in fields and not _TIME.fullmatch(fields[name]):
                self.complaints.append(f"{code}: {name} is {fields[name]}")


@contextmanager
def serving(portal: Portal) -> Iterator[str]:
    """The portal over HTTP in a thread of its own, for tests that have no loop; its address."""
    listener = listen("portal", "127.0.0.1", 0)
    server = HttpServer(portal.app(), listener)
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/sync"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
