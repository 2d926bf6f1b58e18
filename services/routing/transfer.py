"""The hand-over of a dossier, leg by leg: what may be done with a transfer, and what follows for the route.

Pure: time is an argument, the directory says who is there. A `Walk` is a dossier's way along its frozen route; its
methods are the acts on it, and leave the events that they make, in order, in `events`.

    requested ── sent ── delivered ── accepted ── completed
                             │   └──────────┴──── returned      the sender decides: reroute, ask again,
                             └─────────────────── refused       or resolve the dossier otherwise
    every open one may be recalled, or rerouted, by its sender

On one site what is requested is delivered in the same breath. To an agency of another site it is sent over the link, and
delivered when that site has stored it; that site then owns the leg, and home follows what it says. Where the two cross on
the wire, one rule gives each transfer one outcome at both: a completion beats a recall, unless the dossier has ended or
the leg has gone on elsewhere meanwhile; then home's word is final, and the working site is told.

One leg of the route is asked for until one of its transfers is completed: a rerouted or repeated transfer counts by the
one that replaced it. A step is asked for when every leg of the step before is completed; a denied one does not end the
route (contract, "Small rules").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from shared.clock import ClockError, Limit, Unit, first_due
from shared.contracts.codes import local_day
from shared.contracts.events import (
    LimitData,
    Paper,
    Result,
    RouteStep,
    ToLevel,
    ToSector,
    TransferAccepted,
    TransferCompleted,
    TransferDelivered,
    TransferEvent,
    TransferRecalled,
    TransferRefused,
    TransferRequested,
    TransferRerouted,
    TransferReturned,
    TransferSent,
    TransferState,
)
from shared.directory.directory import Directory, DirectoryError, NoTarget, UnknownAgency

Event = TypeVar("Event", bound=TransferEvent)
Need = Literal["supplement", "correction"]
Operation = Literal["accept", "refuse", "complete", "return", "recall", "reroute", "request-again"]

OPERATIONS: Final[Mapping[TransferState, tuple[Operation, ...]]] = MappingProxyType(
    {
        "requested": ("recall", "reroute"),
        "sent": ("recall", "reroute"),
        "delivered": ("accept", "refuse", "return", "recall", "reroute"),
        "accepted": ("complete", "return", "recall", "reroute"),
        "refused": ("reroute", "request-again"),
        "returned": ("reroute", "request-again"),
        "recalled": ("reroute", "request-again"),
        "completed": (),
        "rerouted": (),
    }
)
"""What each state allows while the dossier is open. An officer who has accepted gives the work back by `return`, which
says what is needed; a refusal is the alternative to accepting."""

OPEN: Final = frozenset({"requested", "sent", "delivered", "accepted"})
WAITING: Final = frozenset({"refused", "returned", "recalled"})
ENDED: Final = frozenset({3, 8, 9, 10})
"""The portal's states in which nobody works on a dossier any more."""


class Refusal(Exception):
    """An act that is refused: `code` is stable, the message is for the developer who calls."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class NotAllowed(Refusal):
    """The transfer's state does not allow the operation; `allowed` are those that it does."""

    def __init__(self, code: str, detail: str, state: str, allowed: Sequence[str]) -> None:
        super().__init__(code, detail)
        self.state, self.allowed = state, tuple(allowed)


class WrongTarget(Refusal):
    """The agency named in a reroute cannot take the transfer."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One hand-over. `leg` is the frozen id of its route step, which the first attempt bears too.

    `no_target`: nobody was there to send it to; it was refused by the system. `undone`: the start of its route was
    corrected away. `replaced_by`: the transfer that the leg goes on with.
    """

    id: UUID
    dossier: str
    leg: UUID
    step: int
    sender: str
    receiver: str
    state: TransferState
    attempt: int
    due_at: datetime | None
    asked_at: datetime
    changed_at: datetime
    version: int = 1
    reason: str | None = None
    need: Need | None = None
    result: Result | None = None
    note: str | None = None
    documents: tuple[Paper, ...] = ()
    redirected_from: str | None = None
    no_target: bool = False
    undone: bool = False
    replaces: UUID | None = None
    replaced_by: UUID | None = None


OF_RECEIVER: Final = frozenset({"accept", "refuse", "complete", "return"})
"""What the working site decides; the other operations are home's."""


def allowed(transfer: Transfer, dossier_state: int) -> tuple[Operation, ...]:
    """The operations that this transfer's state and its dossier's allow now."""
    if dossier_state in ENDED or transfer.undone or transfer.replaced_by is not None:
        return ()
    if transfer.no_target:
        return ("reroute",)
    return OPERATIONS[transfer.state]


def next_steps(transfer: Transfer, dossier_state: int, home: str | None = None) -> tuple[str, ...]:
    """What may be done next, by the names of the operations, and so by whom: accept, refuse, complete and return are the
    receiver's, recall, reroute and request-again the sender's; resolution and supplement-request are those of the
    dossier's own desk. Promise 7: a refused transfer has a next step; of another site's dossier the next step is `home`'s.
    """
    steps: tuple[str, ...] = allowed(transfer, dossier_state)
    if home is not None:
        return tuple(step for step in steps if step in OF_RECEIVER)
    if steps and transfer.state in WAITING:
        if transfer.need == "supplement":
            steps = (*steps, "supplement-request")
        steps = (*steps, "resolution")
    return steps


@dataclass(slots=True)
class Walk:
    """A dossier's way along its route: the frozen steps and all transfers that were made for them.

    `started` and `entered` are the ids of the events that began it: dossier.processing-started, and the payment before
    it when that brought the dossier into 4. `home`: the site whose dossier it is, when that is another; the route is
    walked there, and only the legs that are worked on here are known. `events` are what the acts on this walk have made,
    each with the instant at which it happened; `changed` the transfers that they touched.
    """

    dossier: str
    agency: str
    state: int
    due_at: datetime | None
    home: str | None = None
    route: tuple[RouteStep, ...] = ()
    started: UUID | None = None
    entered: UUID | None = None
    transfers: dict[UUID, Transfer] = field(default_factory=dict)
    events: list[tuple[datetime, TransferEvent]] = field(default_factory=list)
    changed: set[UUID] = field(default_factory=set)
    route_changed: bool = False

    # ------------------------------------------------------------------------------------ what the dossier brings

    def begin(
        self, route: tuple[RouteStep, ...], started: UUID, entered: UUID, directory: Directory, now: datetime
    ) -> None:
        """The dossier entered 4 for the first time: its first step is asked for."""
        self.route, self.started, self.entered, self.route_changed = route, started, entered, True
        self._ask_step(min(step.step for step in route), directory, now)

    def recall_open(self, reason: str, now: datetime) -> None:
        """The dossier has ended another way: what is still open is recalled."""
        now = self._not_before(now)
        for transfer in self._open():
            self._recall(transfer, reason, now)

    def undo(self, reason: str, now: datetime) -> None:
        """The start of the route was corrected away: nothing of it goes on, and it may be started afresh."""
        self.recall_open(reason, now)
        for transfer in self._of_route():
            self._put(replace(transfer, undone=True))
        self.route, self.started, self.entered, self.route_changed = (), None, None, True

    def leave_closed(self, new: Mapping[UUID, UUID], directory: Directory, now: datetime) -> None:
        """Open transfers to an agency that has closed go to its successor, each under its new id."""
        now = self._not_before(now)
        for transfer in self._open():
            if transfer.id in new and not directory.valid_on(transfer.receiver, local_day(now)):
                successor = directory.successor_of(transfer.receiver, local_day(now))
                reason = f"{transfer.receiver} đã ngừng hoạt động; {successor} kế thừa."
                self._reroute(transfer, successor, transfer.receiver, reason, new[transfer.id], directory, now)

    # -------------------------------------------------------------------------------------- what the receiver does

    def accept(self, which: UUID, now: datetime) -> None:
        transfer, now = self._may(which, "accept", now)
        self._move(transfer, "accepted", now)
        self._say(TransferAccepted, transfer, now)

    def refuse(self, which: UUID, reason: str, now: datetime) -> None:
        transfer, now = self._may(which, "refuse", now)
        refused = self._move(transfer, "refused", now, reason=reason)
        # What the sender may do next, wherever its site is.
        self._say(TransferRefused, refused, now, reason=reason, next_steps=next_steps(refused, self.state))

    def send_back(self, which: UUID, reason: str, need: Need, now: datetime) -> None:
        """`return` of the contract: the work cannot go on before the dossier is supplemented or corrected."""
        transfer, now = self._may(which, "return", now)
        self._move(transfer, "returned", now, reason=reason, need=need)
        self._say(TransferReturned, transfer, now, reason=reason, need=need)

    def complete(
        self,
        which: UUID,
        result: Result,
        directory: Directory,
        now: datetime,
        note: str | None = None,
        documents: tuple[Paper, ...] = (),
    ) -> None:
        """The leg is done. With the step's last leg the next step is asked for, or the route is complete."""
        transfer, now = self._may(which, "complete", now)
        completed = self._move(transfer, "completed", now, result=result, note=note, documents=documents)
        said: dict[str, Any] = {"result": result, "note": note, "documents": documents}
        if self.home is not None:
            self._say(TransferCompleted, completed, now, **said)
            return
        results = {each.leg: each.result for each in self._of_route() if each.state == "completed"}
        if any(step.transfer not in results for step in self.route if step.step == completed.step):
            self._say(TransferCompleted, completed, now, **said)
        elif later := [step.step for step in self.route if step.step > completed.step]:
            self._say(TransferCompleted, completed, now, **said)
            self._ask_step(min(later), directory, now)
        else:
            outcome: Result = "denied" if "denied" in results.values() else "granted"
            self._say(TransferCompleted, completed, now, **said, route_complete=True, route_result=outcome)

    # ------------------------------------------------------------------------------------- between two sites, at home

    def sent(self, which: UUID, now: datetime) -> None:
        """What was asked for of another site is on its way."""
        now = self._not_before(now)
        transfer = self._move(self.transfers[which], "sent", now)
        self._say(TransferSent, transfer, now)

    def hear(self, said: TransferEvent, directory: Directory, now: datetime) -> Literal["done", "late", "final"]:
        """What the working site says of its leg. `late`: it changes nothing here. `final`: home's word must stand."""
        transfer = self.transfers.get(said.transfer)
        if transfer is None:
            return "late"
        if isinstance(said, TransferDelivered):
            if transfer.state not in ("requested", "sent"):
                return "late"
            now = self._not_before(now)
            self._move(transfer, "delivered", now)
            self._say(TransferDelivered, transfer, now)
            return "done"
        gone_on = self.state in ENDED or transfer.undone or transfer.replaced_by is not None
        if transfer.state not in OPEN:
            if not isinstance(said, TransferCompleted) or transfer.state == "completed":
                return "late"
            if gone_on or transfer.state != "recalled":
                return "final"
        elif gone_on:
            return "final"
        elif isinstance(said, TransferAccepted) and transfer.state == "accepted":
            return "late"
        # The working site has moved on an open leg, or completed one while its recall was on the way.
        if isinstance(said, TransferAccepted | TransferCompleted):
            self._put(replace(transfer, state="accepted" if isinstance(said, TransferCompleted) else "delivered"))
        elif transfer.state in ("requested", "sent"):
            self._put(replace(transfer, state="delivered"))
        match said:
            case TransferAccepted():
                self.accept(said.transfer, now)
            case TransferRefused(reason=reason):
                self.refuse(said.transfer, reason, now)
            case TransferReturned(reason=reason, need=need):
                self.send_back(said.transfer, reason, need, now)
            case TransferCompleted():
                self.complete(said.transfer, said.result, directory, now, said.note, said.documents)
            case _:
                return "late"
        return "done"

    # ----------------------------------------------------------------------------- between two sites, where it is worked on

    def arrive(self, transfer: Transfer, directory: Directory, now: datetime) -> bool:
        """A leg of another site's dossier is here. False: it was before. One for an agency that is not here is refused by
        the system, with a reason."""
        if transfer.id in self.transfers:
            return False
        now = max(now, transfer.asked_at)
        transfer = replace(transfer, state="delivered", changed_at=now)
        self._put(transfer)
        self._say(TransferDelivered, transfer, now)
        known = transfer.receiver in directory.agencies and directory.works_here(transfer.receiver)
        if not known or not directory.valid_on(transfer.receiver, local_day(now)):
            why = "đã ngừng hoạt động" if known else "không thuộc đơn vị này"
            self.refuse(transfer.id, f"Cơ quan {transfer.receiver} {why}.", now)
        return True

    def told(self, said: TransferEvent, final: bool, now: datetime) -> bool:
        """Home has recalled or rerouted a leg. False: it comes too late, the work is completed and home will learn it."""
        transfer = self.transfers.get(said.transfer)
        if transfer is None or transfer.state in ("recalled", "rerouted"):
            return False
        if transfer.state == "completed" and not final:
            return False
        now = self._not_before(now)
        match said:
            case TransferRecalled(reason=reason):
                self._recall(transfer, reason, now)
            case TransferRerouted(reason=reason, to_agency=to, new_transfer=new):
                self._move(transfer, "rerouted", now, reason=reason, replaced_by=new)
                self._say(TransferRerouted, transfer, now, to_agency=to, reason=reason, new_transfer=new)
            case _:
                return False
        return True

    # ----------------------------------------------------------------------- after a restoration from an older backup

    def follow(self, said: TransferEvent, at: datetime) -> None:
        """An event that this walk had made and lost: it stands as it did then, and says nothing anew."""
        if isinstance(said, TransferRequested):
            replaced = self._replaced_by(said)
            if replaced is not None and replaced.replaced_by is None:
                self._put(replace(replaced, replaced_by=said.transfer))
            asked = Transfer(
                id=said.transfer,
                dossier=self.dossier,
                leg=said.transfer if replaced is None else replaced.leg,
                step=said.step,
                sender=said.from_agency,
                receiver=said.to,
                state="requested",
                attempt=said.attempt,
                due_at=said.due_at,
                asked_at=at,
                changed_at=at,
                redirected_from=said.redirected_from,
                replaces=None if replaced is None else replaced.id,
            )
            self._put(asked)
            return
        transfer = self.transfers[said.transfer]
        known: dict[str, Any] = {}
        match said:
            case TransferRefused(reason=reason):
                known = {"reason": reason, "no_target": transfer.state == "requested"}
            case TransferReturned(reason=reason, need=need):
                known = {"reason": reason, "need": need}
            case TransferCompleted(result=result, note=note, documents=documents):
                known = {"result": result, "note": note, "documents": documents}
            case TransferRecalled(reason=reason):
                known = {"reason": reason}
            case TransferRerouted(reason=reason, new_transfer=new):
                known = {"reason": reason, "replaced_by": new}
        self._move(transfer, said.state, at, **known)

    def began(self, route: tuple[RouteStep, ...], started: UUID | None, entered: UUID | None) -> None:
        """The route as it was begun, or (no steps) undone, before the loss; its transfers come back by themselves."""
        self.route, self.started, self.entered, self.route_changed = route, started, entered, True

    def resume(self, directory: Directory, now: datetime) -> None:
        """All that came back has come back: what would have followed on it, and was lost, happens now."""
        now = self._not_before(now)
        legs = {step.transfer for step in self.route}
        for transfer in self._of_route():
            if transfer.leg not in legs:
                self._put(replace(transfer, undone=True))
        if self.state in ENDED or not self.route:
            self.recall_open("Hồ sơ đã kết thúc." if self.route else "Việc bắt đầu giải quyết đã bị hủy.", now)
            return
        for transfer in self._open():
            if transfer.state == "requested" and directory.works_here(transfer.receiver):
                self._move(transfer, "delivered", now)
                self._say(TransferDelivered, transfer, now)
        completed = {each.leg for each in self._of_route() if each.state == "completed"}
        if left := [step.step for step in self.route if step.transfer not in completed]:
            self._ask_step(min(left), directory, now)

    def again(self, said: TransferEvent, now: datetime) -> bool:
        """What was said here, before the loss, of a leg of another site's dossier. False: it stands already."""
        transfer = self.transfers[said.transfer]
        if transfer.state not in OPEN or isinstance(said, TransferDelivered) or transfer.state == said.state:
            return False
        self._put(replace(transfer, state="accepted" if isinstance(said, TransferCompleted) else "delivered"))
        match said:
            case TransferAccepted():
                self._move(transfer, "accepted", now)
                self._say(TransferAccepted, transfer, now)
            case TransferRefused(reason=reason, next_steps=steps):
                self._move(transfer, "refused", now, reason=reason)
                self._say(TransferRefused, transfer, now, reason=reason, next_steps=steps)
            case TransferReturned(reason=reason, need=need):
                self._move(transfer, "returned", now, reason=reason, need=need)
                self._say(TransferReturned, transfer, now, reason=reason, need=need)
            case TransferCompleted(result=result, note=note, documents=documents):
                self._move(transfer, "completed", now, result=result, note=note, documents=documents)
                self._say(TransferCompleted, transfer, now, result=result, note=note, documents=documents)
            case _:
                return False
        return True

    def _replaced_by(self, said: TransferRequested) -> Transfer | None:
        """The transfer whose leg goes on with this one; None for a first attempt."""
        if said.attempt == 1:
            return None
        if said.replaces is not None:
            return self.transfers[said.replaces]
        # Said by an earlier version: a leg that waits alike is as good.
        before = [each for each in self.transfers.values() if each.attempt == said.attempt - 1]
        for each in before:
            if each.replaced_by == said.transfer:
                return each
        asked = said.redirected_from or said.to
        return next(
            each
            for each in sorted(before, key=lambda each: (each.changed_at, each.id))
            if (each.step, each.receiver, each.replaced_by) == (said.step, asked, None) and each.state in WAITING
        )

    # ---------------------------------------------------------------------------------------- what the sender does

    def recall(self, which: UUID, reason: str, now: datetime) -> None:
        transfer = self.transfers[which]
        if transfer.state == "completed":
            raise NotAllowed(
                "already-completed", "The transfer is completed; nothing is left to recall.", transfer.state, ()
            )
        transfer, now = self._may(which, "recall", now)
        self._recall(transfer, reason, now)

    def reroute(self, which: UUID, to: str, reason: str, new: UUID, directory: Directory, now: datetime) -> None:
        """The leg goes on with another agency, under the id `new`; of a closed one its successor is asked."""
        transfer, now = self._may(which, "reroute", now)
        try:
            receiver = directory.successor_of(to, local_day(now))
        except UnknownAgency as error:
            raise WrongTarget(error.reason, "No agency has this code.") from None
        except NoTarget as error:
            raise WrongTarget(error.reason, "This agency has closed and nobody succeeds it.") from None
        if receiver == transfer.receiver and not transfer.no_target:
            raise WrongTarget("same-agency", "The transfer is with this agency; use request-again to ask it again.")
        self._reroute(transfer, receiver, to if to != receiver else None, reason, new, directory, now)

    def request_again(self, which: UUID, new: UUID, directory: Directory, now: datetime) -> None:
        """The same agency, or its successor, is asked for the same step once more, under the id `new`."""
        transfer, now = self._may(which, "request-again", now)
        try:
            receiver = directory.successor_of(transfer.receiver, local_day(now))
        except DirectoryError as error:
            raise NotAllowed(
                error.reason, "This agency has closed and nobody succeeds it.", transfer.state, ("reroute",)
            ) from None
        self._put(replace(transfer, replaced_by=new, version=transfer.version + 1))
        redirected = transfer.receiver if transfer.receiver != receiver else None
        self._ask(self._leg(transfer), new, receiver, redirected, directory, now, replacing=transfer)

    # ---------------------------------------------------------------------------------------------------- inside

    def _of_route(self) -> list[Transfer]:
        return [transfer for transfer in self.transfers.values() if not transfer.undone]

    def _open(self) -> list[Transfer]:
        return sorted((t for t in self.transfers.values() if t.state in OPEN), key=lambda t: (t.step, t.id))

    def _leg(self, transfer: Transfer) -> RouteStep:
        return next(step for step in self.route if step.transfer == transfer.leg)

    def _not_before(self, now: datetime) -> datetime:
        """Nothing happens before what it follows on: an act may have been dated minutes ahead."""
        return max(now, *(transfer.changed_at for transfer in self.transfers.values()), now)

    def _may(self, which: UUID, operation: Operation, now: datetime) -> tuple[Transfer, datetime]:
        transfer = self.transfers[which]
        may = allowed(transfer, self.state)
        if operation not in may:
            raise NotAllowed(
                "move-not-allowed", f"A transfer that is {transfer.state} cannot {operation}.", transfer.state, may
            )
        return transfer, self._not_before(now)

    def _put(self, transfer: Transfer) -> None:
        self.transfers[transfer.id] = transfer
        self.changed.add(transfer.id)

    def _move(self, transfer: Transfer, state: TransferState, now: datetime, **said: Any) -> Transfer:
        moved = replace(transfer, state=state, changed_at=now, version=transfer.version + 1, **said)
        self._put(moved)
        return moved

    def _say(self, event: type[Event], transfer: Transfer, now: datetime, **said: Any) -> None:
        self.events.append(
            (
                now,
                event(
                    transfer=transfer.id,
                    dossier=self.dossier,
                    step=transfer.step,
                    from_agency=transfer.sender,
                    to=transfer.receiver,
                    attempt=transfer.attempt,
                    due_at=transfer.due_at,
                    agency=self.agency,
                    **said,
                ),
            )
        )

    def _recall(self, transfer: Transfer, reason: str, now: datetime) -> None:
        self._move(transfer, "recalled", now, reason=reason)
        self._say(TransferRecalled, transfer, now, reason=reason)

    def _reroute(
        self,
        transfer: Transfer,
        receiver: str,
        redirected_from: str | None,
        reason: str,
        new: UUID,
        directory: Directory,
        now: datetime,
    ) -> None:
        self._move(transfer, "rerouted", now, reason=reason, replaced_by=new)
        self._say(TransferRerouted, transfer, now, to_agency=receiver, reason=reason, new_transfer=new)
        self._ask(self._leg(transfer), new, receiver, redirected_from, directory, now, replacing=transfer)

    def _ask_step(self, number: int, directory: Directory, now: datetime) -> None:
        """Equal step numbers run in parallel; whom a step goes to is decided now (contract, "`to`")."""
        asked = {transfer.leg for transfer in self._of_route()}
        for leg in self.route:
            if leg.step != number or leg.transfer in asked:
                continue
            named = leg.to if isinstance(leg.to, str) else None
            try:
                receiver = directory.resolve_target(leg.to, self.agency, local_day(now))
            except DirectoryError:
                self._ask_nobody(leg, directory, now)
                continue
            self._ask(leg, leg.transfer, receiver, named if named != receiver else None, directory, now)

    def _ask(
        self,
        leg: RouteStep,
        new: UUID,
        receiver: str,
        redirected_from: str | None,
        directory: Directory,
        now: datetime,
        replacing: Transfer | None = None,
    ) -> None:
        """Within one site what is asked for is delivered by itself, in the same breath; for another it waits to be sent."""
        here = directory.works_here(receiver)
        transfer = Transfer(
            id=new,
            dossier=self.dossier,
            leg=leg.transfer,
            step=leg.step,
            sender=self.agency,
            receiver=receiver,
            state="delivered" if here else "requested",
            attempt=1 if replacing is None else replacing.attempt + 1,
            due_at=self._leg_due(leg.limit, receiver, directory, now),
            asked_at=now,
            changed_at=now,
            redirected_from=redirected_from,
            replaces=None if replacing is None else replacing.id,
        )
        self._put(transfer)
        self._say_requested(leg, transfer, now)
        if here:
            self._say(TransferDelivered, transfer, now)

    def _ask_nobody(self, leg: RouteStep, directory: Directory, now: datetime) -> None:
        """Nobody is there to take it: the system refuses it with a reason, and the sender reroutes it or resolves.

        Where the step names no agency, the sender's own stands as the receiver: it is the one that must act.
        """
        match leg.to:
            case str() as code:
                reason = f"Cơ quan {code} không còn hoạt động và không có cơ quan kế thừa."
            case ToLevel(level=level):
                reason = f"Không có cơ quan cấp {level} đang hoạt động để nhận hồ sơ của {self.agency}."
            case ToSector(sector=sector):
                reason = f"Không có cơ quan ngành {sector} đang hoạt động để nhận hồ sơ của {self.agency}."
        transfer = Transfer(
            id=leg.transfer,
            dossier=self.dossier,
            leg=leg.transfer,
            step=leg.step,
            sender=self.agency,
            receiver=leg.to if isinstance(leg.to, str) else self.agency,
            state="refused",
            attempt=1,
            due_at=self._leg_due(leg.limit, self.agency, directory, now),
            asked_at=now,
            changed_at=now,
            reason=reason,
            no_target=True,
        )
        self._put(transfer)
        self._say_requested(leg, transfer, now)
        self._say(TransferRefused, transfer, now, reason=reason, next_steps=next_steps(transfer, self.state))

    def _say_requested(self, leg: RouteStep, transfer: Transfer, now: datetime) -> None:
        self._say(
            TransferRequested,
            transfer,
            now,
            limit=leg.limit,
            redirected_from=transfer.redirected_from,
            parallel=sum(1 for each in self.route if each.step == leg.step),
            replaces=transfer.replaces,
        )

    def _leg_due(self, limit: LimitData | None, agency: str, directory: Directory, now: datetime) -> datetime | None:
        """The leg's own limit in the working time of the agency that works on it; without one the dossier's due date.

        A limit that no calendar can count (no working time at all) leaves the dossier's due date as well.
        """
        if limit is None:
            return self.due_at
        try:
            counted = Limit(value=limit.value, unit=Unit(limit.unit))
            return first_due(counted, now, directory.calendar_for(agency, now))
        except (ClockError, DirectoryError, ValueError):
            return self.due_at
