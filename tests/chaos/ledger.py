"""What was asked for and what was answered: the judge's side of the books, kept by who asked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Reach = Literal["sms", "postal", "nobody"]
"""How an applicant can be told: by a mobile number, by an address alone, or not at all."""


@dataclass(slots=True)
class Act:
    """One write and its answer. `asked` and `answered` are on the driver's monotonic clock, in seconds.

    `mark` is what tells this act from all others in the dossier's events: its reason, amount, component or reference.
    `took_place` is None until it is answered; the act of an import line has no `version`.
    """

    op: str
    mark: Any = None
    asked: float = 0.0
    answered: float = 0.0
    took_place: bool | None = None
    status: int = 0
    version: int | None = None
    state: int | None = None
    due_at: str | None = None
    imported: bool = False


@dataclass(slots=True)
class Dossier:
    """One dossier as its people know it."""

    agency: str
    procedure: str
    channel: str
    phone: str | None
    address: str | None
    code: str = ""
    components: int = 0
    digitised: int = 0
    acts: list[Act] = field(default_factory=list)
    transfers: list["TransferAct"] = field(default_factory=list)

    @property
    def reach(self) -> Reach:
        return "sms" if self.phone else "postal" if self.address else "nobody"

    def done(self) -> Iterator[Act]:
        return (act for act in self.acts if act.took_place)


@dataclass(slots=True)
class TransferAct:
    """One act on a transfer. `new_transfer` is the one that it was replaced by."""

    transfer: str
    op: str
    took_place: bool | None = None
    status: int = 0
    new_transfer: str | None = None


@dataclass
class Ledger:
    """Everything that the load did, and what of the answers was wrong in itself."""

    dossiers: list[Dossier] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # promise, dossier, what
    requests: int = 0
    repeated: int = 0
    errors: int = 0  # answers of 5xx
    refused: int = 0
    lines: int = 0
    unexpected: dict[str, int] = field(default_factory=dict)  # answers by "status code": to be looked at

    @property
    def coded(self) -> dict[str, Dossier]:
        return {dossier.code: dossier for dossier in self.dossiers if dossier.code}

    @property
    def acts(self) -> int:
        return sum(1 for dossier in self.dossiers for act in dossier.acts if act.took_place)
