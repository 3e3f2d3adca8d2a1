"""Room for chunks in flight over all connections of a node, shared so that slow or idle senders cannot take it all."""

from collections import Counter, deque
from dataclasses import dataclass

from twisted.internet.defer import Deferred


@dataclass(eq=False)
class Permit:
    """Room for one chunk."""

    address: str
    proven: bool
    number: int
    """It was asked for as the n-th."""


Waiter = tuple[Permit, "Deferred[Permit]"]
Key = tuple[bool, str]


class Room:
    """Permits for chunks.

    A connection that has completed a chunk is proven: it may use all of the room, while the others share half of it, of
    which one address has half at most. Of each kind the address that holds least comes first; then it is the first that
    asked. So a thousand connections of one peer that announce chunks and do not send them hold up neither those who do
    send nor a newcomer from elsewhere.
    """

    def __init__(self, size: int) -> None:
        """Take the number of chunks."""
        self.tokens = size
        """Permits that are free."""
        self._unproven_left = max(1, size // 2)
        self._of_one_address = max(1, size // 4)
        self._held: Counter[Key] = Counter()
        self._asked = 0
        self._waiting: dict[bool, dict[str, deque[Waiter]]] = {True: {}, False: {}}

    def acquire(self, address: str, proven: bool) -> "Deferred[Permit]":
        """Fire when there is room, with what is to be given to `release`; cancel it to wait no more."""
        self._asked += 1
        permit = Permit(address, proven, self._asked)
        granted: Deferred[Permit] = Deferred(lambda _: self._forget(permit))
        self._waiting[proven].setdefault(address, deque()).append((permit, granted))
        self._grant()
        return granted

    def release(self, permit: Permit) -> None:
        """Give room back."""
        self._let_go(permit)
        self._grant()

    def _take(self, permit: Permit) -> None:
        self.tokens -= 1
        self._unproven_left -= not permit.proven
        self._held[permit.proven, permit.address] += 1

    def _let_go(self, permit: Permit) -> None:
        self.tokens += 1
        self._unproven_left += not permit.proven
        key = (permit.proven, permit.address)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    def prove(self, permit: Permit) -> None:
        """Note that the chunk has come: what it takes from now on is the keeper's time, not the sender's."""
        if not permit.proven:
            self._let_go(permit)
            permit.proven = True
            self._take(permit)
            self._grant()

    def wanted(self, permit: Permit) -> bool:
        """Return whether somebody waits who would get the room of ``permit``."""
        if self._waiting[True]:
            return True
        if permit.proven and not self._unproven_left:
            return False
        mine = None if permit.proven else permit.address
        return any(
            address == mine or self._held[False, address] < self._of_one_address
            for address in self._waiting[False]
        )

    def _forget(self, permit: Permit) -> None:
        addresses = self._waiting[permit.proven]
        left = deque(waiter for waiter in addresses[permit.address] if waiter[0] is not permit)
        if left:
            addresses[permit.address] = left
        else:
            del addresses[permit.address]

    def _grant(self) -> None:
        while self.tokens:
            first = [waiters for kind in (True, False) if (waiters := self._next(kind)) is not None]
            if not first:
                return
            waiters = min(first, key=lambda each: each[0][0].number)
            permit, granted = waiters.popleft()
            addresses = self._waiting[permit.proven]
            del addresses[permit.address]
            if waiters:
                addresses[permit.address] = waiters  # at the end: those that hold as much take turns
            self._take(permit)
            granted.callback(permit)

    def _next(self, proven: bool) -> deque[Waiter] | None:
        """Return the waiters of the address whose turn it is among the proven or the others."""
        addresses = self._waiting[proven]
        if not addresses or not (proven or self._unproven_left):
            return None
        address = min(addresses, key=lambda each: self._held[proven, each])
        if not proven and self._held[False, address] >= self._of_one_address:
            return None
        return addresses[address]
