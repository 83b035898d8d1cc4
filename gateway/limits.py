"""How much is let in: the ledger of buffered bytes."""

from __future__ import annotations

from gateway.errors import Overloaded


class Ledger:
    """Bytes of request bodies that the process holds at once; over the limit a request is refused before it is read."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Reserve bytes; raises Overloaded when there is no room for them."""
        if self.held + size > self.limit:
            raise Overloaded("The gateway holds too many request bytes already; try again.", retry_after=1)
        self.held += size

    def give_back(self, size: int) -> None:
        """Free bytes that were reserved."""
        self.held -= size
