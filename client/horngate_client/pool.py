"""Which address a request goes to: in turn, without those that failed, until a probe finds them well again.

An address whose attempt failed is ejected for a time that doubles with each failure in a row. Then a probe asks it
whether the model is ready, beside the calls, so that no caller waits for it. If it is, the address gets one request
at a time until the first is answered. Where every address is ejected, all are used all the same.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum

FIRST_EJECTION_SECONDS = 0.5
LONGEST_EJECTION_SECONDS = 30.0
PROBE_SECONDS = 2.0
"""How long a probe may take."""
LEAST_SHARE_SECONDS = 0.25
"""No attempt is cut off earlier, whatever its share of the deadline is."""


class Health(Enum):
    """What is known of an address."""

    GOOD = "good"
    EJECTED = "ejected"
    PROBED = "probed"
    TRIAL = "trial"


@dataclass(slots=True)
class _Member:
    health: Health = Health.GOOD
    in_flight: int = 0
    failures: int = 0
    until: float = 0.0

    @property
    def usable(self) -> bool:
        return self.health is Health.GOOD or (self.health is Health.TRIAL and self.in_flight == 0)


class Pool:
    """The addresses of one client and their health; safe to share between threads."""

    def __init__(self, addresses: Iterable[str], *, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._members = {address: _Member() for address in addresses}
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._turn = int(random() * len(self._members))
        self._slowest = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, ejected ones too."""
        return tuple(self._members)

    def replace(self, addresses: Iterable[str]) -> None:
        """Take the addresses that the names have now; what stays keeps its health."""
        with self._lock:
            self._members = {address: self._members.get(address) or _Member() for address in addresses}

    def take(self, tried: Collection[str] = (), *, first: str | None = None) -> str:
        """Choose an address and count a request to it; there must be one.

        Args:
            tried: addresses where this request failed before; they are chosen only where nothing else is left.
            first: the address to prefer.
        """
        with self._lock:
            found = first if first is not None and first in self._members else self._choose(tried)
            self._members[found].in_flight += 1
            return found

    def has_other(self, tried: Collection[str]) -> bool:
        """Return whether there is a usable address beside these."""
        with self._lock:
            return any(member.usable and address not in tried for address, member in self._members.items())

    def attempt_seconds(self, remaining: float, share: float) -> float:
        """Return how long an attempt may take where another address could be asked after it.

        A share of what remains, but never less than three times the slowest of the latest answers: a slow model is
        not taken for a dead server.
        """
        return min(remaining, max(remaining * share, 3 * self._slowest, LEAST_SHARE_SECONDS))

    def answered(self, address: str, seconds: float) -> None:
        """Take note of an answer, a refusal included: somebody is there."""
        with self._lock:
            self._slowest = max(seconds, self._slowest * 0.98)
            member = self._members.get(address)
            if member:
                member.in_flight -= 1
                member.health, member.failures = Health.GOOD, 0

    def failed(self, address: str, *, suspected: bool) -> None:
        """Eject an address.

        Args:
            address: where the attempt went.
            suspected: it did not answer in time, which may be the model's slowness: it is probed at once.
        """
        with self._lock:
            member = self._members.get(address)
            if member:
                member.in_flight -= 1
                if member.health in (Health.GOOD, Health.TRIAL):  # of many in flight, the first to fail counts
                    self._eject(member, suspected=suspected)

    def dropped(self, address: str) -> None:
        """Take note that a request ended without saying anything about the server: it was cancelled or refused."""
        with self._lock:
            if address in self._members:
                self._members[address].in_flight -= 1

    def due_probes(self) -> tuple[str, ...]:
        """Return the addresses that are to be probed now; each needs ``probed`` afterwards."""
        with self._lock:
            now = self._clock()
            if len(self._members) < 2:  # the calls themselves are the probes of a single one
                return ()
            due = [a for a, m in self._members.items() if m.health is Health.EJECTED and m.until <= now]
            for address in due:
                self._members[address].health = Health.PROBED
            return tuple(due)

    def probed(self, address: str, *, ready: bool) -> None:
        """Take a probe's answer."""
        with self._lock:
            member = self._members.get(address)
            if member and member.health is Health.PROBED:
                if ready:
                    member.health = Health.TRIAL
                else:
                    self._eject(member, suspected=False)

    # --- private --------------------------------------------------------------------------------------------

    def _choose(self, tried: Collection[str]) -> str:
        members = self._members
        good = [address for address, member in members.items() if member.usable]
        choices = (
            [address for address in good if address not in tried]
            or good
            or [address for address in members if address not in tried]
            or list(members)
        )
        start = self._turn % len(choices)
        self._turn += 1
        return min((*choices[start:], *choices[:start]), key=lambda address: members[address].in_flight)

    def _eject(self, member: _Member, *, suspected: bool) -> None:
        member.failures += 1
        seconds = min(FIRST_EJECTION_SECONDS * 2.0 ** min(member.failures - 1, 16), LONGEST_EJECTION_SECONDS)
        if suspected and member.failures == 1:
            seconds = 0.0
        member.health = Health.EJECTED
        member.until = self._clock() + seconds * (0.5 + 0.5 * self._random())
