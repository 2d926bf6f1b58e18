"""Guessing at a login costs time: after so many failures within a window an address waits. Pure; the clock is the caller's."""

from collections import OrderedDict, deque
from typing import Final

MOST_KNOWN: Final = 10_000  # addresses that are remembered; the one that failed longest ago is forgotten first


class Throttle:
    """`most` failures within `window` seconds are let by; what comes then waits until the first of them is that old."""

    def __init__(self, most: int, window: float) -> None:
        self._most, self._window = most, window
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        failed = self._failed.get(address)
        if failed is None:
            return 0.0
        while failed and failed[0] <= now - self._window:
            failed.popleft()
        if not failed:
            del self._failed[address]
        return failed[0] + self._window - now if len(failed) >= self._most else 0.0

    def fail(self, address: str, now: float) -> None:
        failed = self._failed.setdefault(address, deque(maxlen=self._most))
        failed.append(now)
        self._failed.move_to_end(address)
        if len(self._failed) > MOST_KNOWN:
            self._failed.popitem(last=False)
