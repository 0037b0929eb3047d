"""A bounded waiting line, fair between keys: in turn over the keys that wait, first come first served within a key."""

from collections import OrderedDict, defaultdict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Ticket = TypeVar("Ticket", bound=Hashable)


class Line(Generic[Key, Ticket]):
    """At most `size` tickets; a ticket stands in it once. No operation takes longer in a longer line.

    Ordered dicts throughout: taking the first of a plain dict gets slower with each one taken before.
    """

    __slots__ = ("_length", "_levels", "_most", "_size", "_waiting")

    def __init__(self, size: int) -> None:
        self._size = size
        self._length = 0
        self._waiting: OrderedDict[Key, OrderedDict[Ticket, None]] = OrderedDict()  # the key whose turn it is first
        self._levels: defaultdict[int, OrderedDict[Key, None]] = defaultdict(OrderedDict)  # keys by number of tickets
        self._most = 0  # the highest level with a key

    def __len__(self) -> int:
        return self._length

    def join(self, key: Key, ticket: Ticket) -> Ticket | None:
        """The ticket without a place, None when there was room for all.

        In a full line that is the newest ticket of the key with the most, if it has at least two more than this key;
        else it is this ticket.
        """
        pushed = None
        if self._length >= self._size:
            if self._most <= len(self._waiting.get(key, ())) + 1:
                return ticket
            greediest = next(iter(self._levels[self._most]))
            pushed = next(reversed(self._waiting[greediest]))
            self.leave(greediest, pushed)
        tickets = self._waiting.setdefault(key, OrderedDict())
        tickets[ticket] = None
        self._length += 1
        self._move(key, len(tickets) - 1, len(tickets))
        return pushed

    def leave(self, key: Key, ticket: Ticket) -> bool:
        """Give up a place. False: it had none any more, it was called or pushed out."""
        tickets = self._waiting.get(key)
        if tickets is None or ticket not in tickets:
            return False
        del tickets[ticket]
        self._length -= 1
        if not tickets:
            del self._waiting[key]
        self._move(key, len(tickets) + 1, len(tickets))
        return True

    def next(self) -> Ticket | None:
        """Call the next ticket, None if nobody waits."""
        if not self._waiting:
            return None
        key, tickets = next(iter(self._waiting.items()))
        ticket = next(iter(tickets))
        self.leave(key, ticket)
        if tickets:
            self._waiting.move_to_end(key)
        return ticket

    def _move(self, key: Key, old: int, new: int) -> None:
        """Keep the levels after a key's number of tickets changed by one."""
        if old:
            del self._levels[old][key]
        if new:
            self._levels[new][key] = None
        if new > self._most or not self._levels[self._most]:
            self._most = new
