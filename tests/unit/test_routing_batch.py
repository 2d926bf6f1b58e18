"""What routing makes of a batch of dossier events: projections, transfers, the public topic, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.routing.crossing import Out
from services.routing.dossier import Dossier, public_id
from services.routing.handlers import Batch
from services.routing.transfer import Walk
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope, Mode, parse
from shared.contracts.events import (
    Component,
    DossierCorrected,
    DossierEvent,
    DossierPaid,
    DossierPaymentRequested,
    DossierProcessingStarted,
    DossierReceived,
    DossierResolved,
    DossierStopped,
    DossierWithdrawalRequested,
    DossierWithdrawn,
    LimitData,
    RouteStep,
    TransferRecalled,
)
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

DIRECTORY = Directory(
    merge(
        None,
        parse_bundle(
            """
site: {code: H55, name: T}
agencies:
  - {code: H55, name: T, level: province}
  - {code: H55.21, name: Công an, level: sector, parent: H55, sector: police}
  - {code: H55.242, name: Xã, level: commune, parent: H55}
procedures:
  - {code: "1.001193", name: A, field: {code: G01-TP01, name: Hộ tịch}, limit: {value: 5, unit: working_days}}
  - {code: "2.001263", name: B, field: {code: G01-TP04, name: Nuôi con nuôi}, confidential: true,
     limit: {value: 30, unit: days}}
"""
        ),
    )[0]
)
NOW = datetime(2026, 10, 12, 2, 30, tzinfo=UTC)
CODE = "H55.242-261012-0001"
OTHER = "H55.242-261012-0002"
SOURCE = "/sites/H55/routing"


def base(previous: int | None, state: int, **changes: Any) -> dict[str, Any]:
    return {
        "agency": "H55.242",
        "procedure": "1.001193",
        "previous": previous,
        "state": state,
        "due_at": NOW + timedelta(days=7),
        "paused": False,
        "by": "desk",
        "confidential": False,
    } | changes


def received(**changes: Any) -> DossierReceived:
    return DossierReceived(
        **base(None, 2, **changes),
        deciding_agency="H55.242",
        field="G01-TP01",
        channel="counter",
        return_by="counter",
        applicant_kind="citizen",
        contact_ref="c-1",
        components=(Component(name="Tờ khai"),),
        limit=LimitData(value=5, unit="working_days"),
    )


def started(*route: RouteStep, previous: int = 2, **changes: Any) -> DossierProcessingStarted:
    return DossierProcessingStarted(**base(previous, 4, **changes), route=route)


def police() -> RouteStep:
    return RouteStep(step=1, to="H55.21", transfer=uuid7())


def stopped(previous: int) -> DossierStopped:
    return DossierStopped(**base(previous, 8), reason="theo đơn")


class Site:
    """Batches one after the other on what the ones before have left."""

    def __init__(self) -> None:
        self.dossiers: dict[str, Dossier] = {}
        self.walks: dict[str, Walk] = {}
        self.sequences: dict[str, int] = {}
        self.faults: dict[int, str] = {}

    def batch(self, *events: DossierEvent | tuple[str, DossierEvent], mode: Mode = "live") -> list[Envelope]:
        batch = Batch(out=Out("H55", SOURCE, DIRECTORY, None, NOW), dossiers=self.dossiers, walks=self.walks)
        self.ids: list[UUID] = []
        for index, event in enumerate(events):
            code, data = event if isinstance(event, tuple) else (CODE, event)
            self.sequences[code] = self.sequences.get(code, 0) + 1
            self.ids.append(uuid7())
            envelope = Envelope(
                topic="lienthong.dossier.v1",
                id=self.ids[-1],
                source="/sites/H55/intake",
                type=data.short,
                subject=code,
                time=NOW - timedelta(minutes=1),
                recorded=NOW,
                sequence=self.sequences[code],
                mode=mode,
                data=data.to_json(),
            )
            batch.take(index, envelope, data)
        self.faults = {index: fault.reason for index, fault in batch.faults.items()}
        return batch.out.events


def shorts(envelopes: list[Envelope], topic: str) -> list[str]:
    return [each.type for each in envelopes if each.topic == f"lienthong.{topic}.v1"]


def test_a_start_asks_for_the_first_step_and_both_lines_are_contiguous() -> None:
    site = Site()
    out = site.batch(received(), started(police()))
    assert shorts(out, "public.dossier") == ["dossier.received", "dossier.processing-started"]
    assert shorts(out, "transfer") == ["transfer.requested", "transfer.delivered"]
    for topic in ("public.dossier", "transfer"):
        assert [e.sequence for e in out if e.topic == f"lienthong.{topic}.v1"] == [1, 2]
    assert {(each.subject, each.source, each.mode) for each in out} == {(CODE, SOURCE, "live")}
    assert [parse(each) for each in out] != []


def test_the_lines_go_on_where_the_batch_before_left_them() -> None:
    site = Site()
    site.batch(received(), started(police()))
    out = site.batch(stopped(4))
    assert [(each.type, each.sequence) for each in out] == [("dossier.stopped", 3), ("transfer.recalled", 3)]
    recalled = parse(out[1])
    assert isinstance(recalled, TransferRecalled)
    assert recalled.reason == "Hồ sơ đã dừng giải quyết: theo đơn"


def test_the_public_view_holds_public_fields_alone() -> None:
    out = Site().batch(received())
    public = out[0]
    assert public.data is not None
    fields = orjson.loads(public.data)
    assert {"agency", "procedure", "state", "due_at", "channel", "limit"} <= fields.keys()
    assert not fields.keys() & {"contact_ref", "by", "confidential", "components", "applicant_kind", "fee"}
    assert public.time == NOW - timedelta(minutes=1)


def test_nothing_confidential_becomes_public() -> None:
    site = Site()
    assert shorts(site.batch(received(confidential=True), started(police())), "public.dossier") == []
    # What the catalogue has made confidential meanwhile, too, and what was confidential once.
    assert Site().batch(received(procedure="2.001263")) == []
    site.batch(stopped(4))
    assert site.dossiers[CODE].public_sequence == 0


def test_mode_history_makes_no_transfers_and_its_public_events_say_so() -> None:
    out = Site().batch(received(), started(police()), mode="history")
    assert [each.mode for each in out] == ["history", "history"]
    assert shorts(out, "transfer") == []


def test_no_route_asks_nobody() -> None:
    assert shorts(Site().batch(received(), started()), "transfer") == []


@pytest.mark.parametrize(
    "end",
    [
        (stopped(4),),
        (DossierWithdrawalRequested(**base(4, 7), reason="x"), DossierWithdrawn(**base(7, 8))),
        (DossierResolved(**base(4, 9), result="granted"),),
    ],
)
def test_a_dossier_that_ends_recalls_what_is_open(end: tuple[DossierEvent, ...]) -> None:
    site = Site()
    site.batch(received(), started(police()))
    assert shorts(site.batch(*end), "transfer") == ["transfer.recalled"]
    assert {each.state for each in site.walks[CODE].transfers.values()} == {"recalled"}


def test_start_and_stop_in_one_batch() -> None:
    out = Site().batch(received(), started(police()), stopped(4))
    assert shorts(out, "transfer") == ["transfer.requested", "transfer.delivered", "transfer.recalled"]


def test_a_contradiction_stops_its_dossier_and_no_other() -> None:
    site = Site()
    out = site.batch(received(), stopped(4), (OTHER, received()), started())
    assert site.faults == {1: "state-contradiction"}
    assert [(each.subject, each.type) for each in out] == [(CODE, "dossier.received"), (OTHER, "dossier.received")]
    assert site.dossiers[CODE].state == 2


def test_a_dossier_that_exists_is_not_received_again() -> None:
    site = Site()
    site.batch(received())
    site.batch(received())
    assert site.faults == {0: "state-contradiction"}


def test_a_route_is_started_once() -> None:
    site = Site()
    site.batch(received(), started(police()))
    assert site.batch(started(police(), previous=4)) == []
    assert site.faults == {0: "state-contradiction"}


def correction(undoes: UUID, previous: int, state: int) -> DossierCorrected:
    return DossierCorrected(
        **base(previous, state), undoes=undoes, undone_type="dossier.processing-started", reason="nhầm"
    )


def test_a_start_that_is_corrected_away_recalls_its_transfers_and_may_come_again() -> None:
    site = Site()
    site.batch(received(), started(police()))
    out = site.batch(correction(site.ids[1], 4, 2))
    assert shorts(out, "transfer") == ["transfer.recalled"]
    assert not site.dossiers[CODE].routed

    site.walks.clear()  # a later batch loads no walk of a dossier without a route
    out = site.batch(started(police()))
    assert shorts(out, "transfer") == ["transfer.requested", "transfer.delivered"]
    assert [each.sequence for each in out if each.topic == "lienthong.transfer.v1"] == [4, 5]


def test_so_does_a_payment_that_is_corrected_away_when_it_began_the_route() -> None:
    site = Site()
    site.batch(received(), DossierPaymentRequested(**base(2, 6), amount=1000))
    site.batch(DossierPaid(**base(6, 4), amount=1000, method="online"), started(police(), previous=4))
    assert shorts(site.batch(correction(site.ids[0], 4, 6)), "transfer") == ["transfer.recalled"]


def test_a_correction_of_something_else_leaves_the_route_alone() -> None:
    site = Site()
    site.batch(received(), started(police()))
    assert shorts(site.batch(correction(uuid7(), 4, 4)), "transfer") == []
    assert site.dossiers[CODE].routed


def test_the_public_correction_names_the_public_event_that_it_undoes() -> None:
    site = Site()
    start = next(e for e in site.batch(received(), started()) if e.type == "dossier.processing-started")
    corrected = site.batch(correction(site.ids[1], 4, 2))[0]
    assert corrected.data is not None
    assert orjson.loads(corrected.data)["undoes"] == str(start.id)


def test_a_public_id_is_a_uuid7_of_the_same_instant() -> None:
    original = uuid7()
    public = public_id(original)
    assert (public.version, public.variant) == (original.version, original.variant)
    assert public.int >> 80 == original.int >> 80
    assert public != original
    assert public_id(original) == public
