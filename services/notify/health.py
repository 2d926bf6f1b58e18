"""Which provider is asked: by the bundle's order and by health, and how fast. Pure: time is an argument, in seconds."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from shared.directory.bundle import BudgetEntry, ProviderEntry


@dataclass(slots=True)
class Health:
    """The share of slow or failed calls over a window. A recipient's fault is a call that went well.

    Seconds. Who was bad and looks good again comes back slowly, over `back`.
    """

    window: float = 60.0
    least: int = 5
    share: float = 0.5
    slow: float = 5.0
    back: float = 300.0
    _was_bad: bool = False
    _back_at: float | None = None
    _ended: deque[tuple[float, bool]] = field(default_factory=deque)
    _bad: int = 0  # of those that have ended within the window
    _running: dict[int, float] = field(default_factory=dict)
    _next: int = 0

    def begin(self, now: float) -> int:
        """A call begins; the number names it when it ends."""
        self._next += 1
        self._running[self._next] = now
        return self._next

    def end(self, call: int, now: float, *, failed: bool) -> None:
        began = self._running.pop(call)
        bad = failed or now - began > self.slow
        self._ended.append((now, bad))
        self._bad += bad

    @property
    def running(self) -> int:
        return len(self._running)

    def good(self, now: float) -> bool:
        """Whether the provider works; a call that still runs and is slow already counts as one that failed."""
        while self._ended and self._ended[0][0] < now - self.window:
            self._bad -= self._ended.popleft()[1]
        hanging = sum(1 for began in self._running.values() if now - began > self.slow)
        judged = hanging + len(self._ended)
        return judged < self.least or (hanging + self._bad) / judged < self.share

    def trust(self, now: float) -> float:
        """The share of its turns that the provider gets: 1 while it works, 0 while it does not, and what it has earned
        again since, at least a tenth."""
        if not self.good(now):
            self._was_bad, self._back_at = True, None
            return 0.0
        if self._was_bad:
            self._was_bad, self._back_at = False, now
        if self._back_at is None:
            return 1.0
        earned = (now - self._back_at) / self.back
        if earned >= 1.0:
            self._back_at = None
        return min(1.0, max(0.1, earned))


@dataclass(slots=True)
class Outage:
    """A carrier that has taken nothing for `patience` is down, and is asked again every `again`. Seconds.

    Orders are few and wait for days: a share of calls over a minute says nothing of a carrier, a quarter of an hour does.
    """

    patience: float
    again: float
    _since: float | None = None
    _failed_at: float = 0.0

    def note(self, now: float, *, took: bool) -> None:
        """A call has ended. A recipient's fault is a call that went well."""
        if took:
            self._since = None
            return
        if self._since is None or now - self._failed_at > self.patience:  # what it was like in between nobody knows
            self._since = now
        self._failed_at = now

    def down(self, now: float) -> bool:
        """False also when it is time to see whether it is back."""
        return (
            self._since is not None
            and self._failed_at - self._since >= self.patience
            and now - self._failed_at < self.again
        )


@dataclass(slots=True)
class Pace:
    """At most `per_second` calls begin within any second (below one a second: one in so many seconds)."""

    per_second: float | None
    _begun: deque[float] = field(default_factory=deque)

    # A little over a second: what is let go here a second apart may arrive there a little closer.
    _SECOND = 1.02

    def free(self, now: float) -> int:
        """How many calls may begin now."""
        if self.per_second is None:
            return 1_000_000
        while self._begun and self._begun[0] <= now - self._span:
            self._begun.popleft()
        return max(1, int(self.per_second)) - len(self._begun)

    def take(self, now: float) -> None:
        if self.per_second is not None:
            self._begun.append(now)

    def spend(self, now: float) -> None:
        """As if all had been used up now: by whoever sent before us."""
        if self.per_second is not None:
            self._begun.extend([now] * max(1, int(self.per_second)))

    def wait(self, now: float) -> float:
        """Seconds until a call may begin."""
        if self.free(now) > 0 or not self._begun:
            return 0.0
        return max(0.0, self._begun[0] + self._span - now)

    @property
    def _span(self) -> float:
        rate = self.per_second or 1.0
        return self._SECOND * max(1, int(rate)) / rate


@dataclass(slots=True)
class Purse:
    """What has been spent of the agencies' daily budgets, in parts of SMS, on one local day."""

    day: date
    spent: dict[str, int] = field(default_factory=dict)

    def turn(self, day: date) -> None:
        """A new day begins with nothing spent."""
        if day != self.day:
            self.day, self.spent = day, {}

    def affords(self, budgets: Iterable[BudgetEntry], parts: int) -> bool:
        return all(self.spent.get(budget.agency, 0) + parts <= budget.parts_per_day for budget in budgets)

    def take(self, budgets: Iterable[BudgetEntry], parts: int) -> None:
        """Less than none: what was not spent after all."""
        for budget in budgets:
            self.spent[budget.agency] = max(0, self.spent.get(budget.agency, 0) + parts)


def order_of(providers: Sequence[ProviderEntry], trust: Mapping[str, float], turn: int) -> list[str]:
    """The names in the order in which they are asked.

    As the bundle lists them; those with an equal `priority` stand together and take turns by their weights; the unhealthy
    stand behind the healthy, and who comes back stands there for the turns that it has not earned. If all look bad nothing
    is changed: it may be our own line.
    """
    groups: dict[object, list[ProviderEntry]] = {}
    for entry in providers:
        groups.setdefault(entry.name if entry.priority is None else entry.priority, []).append(entry)
    listed = [name for group in groups.values() for name in _turned(group, turn)]
    if not any(trust.get(name, 1.0) for name in listed):
        return listed
    share = turn * _GOLDEN % 1.0  # spreads any share evenly over the turns
    return sorted(listed, key=lambda name: not trust.get(name, 1.0) > share)


def choose(order: Sequence[str], tried: Collection[str], bound: str | None) -> str | None:
    """The provider to ask next: the one that the notice is bound to, else the first that has not refused it."""
    if bound is not None:
        return bound if bound in order else None
    return next((name for name in order if name not in tried), None)


_GOLDEN: Final = 0.6180339887498949


def _turned(group: Sequence[ProviderEntry], turn: int) -> list[str]:
    """The names, beginning with the one whose turn it is: of so many turns as the weights add up to, each has its weight."""
    names = [entry.name for entry in group]
    place = turn % sum(entry.weight for entry in group)
    start = 0
    while place >= group[start].weight:
        place -= group[start].weight
        start += 1
    return names[start:] + names[:start]
