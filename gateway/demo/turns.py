"""Where a conversation stands, whatever its wire format: what the user said last, and what came after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.hub import Json

Claim = Callable[[Json], bool]


def current(
    messages: Sequence[Json], spoken: Claim, answers: Claim | None = None
) -> tuple[Json | None, Sequence[Json]]:
    """The last message that is `spoken` by the user, None when there is none, and the turn that follows it.

    A message that both speaks and `answers` tools belongs to the turn.
    """
    last = max((at for at, message in enumerate(messages) if spoken(message)), default=-1)
    if last < 0:
        return None, messages
    said = messages[last]
    return said, messages[last if answers and answers(said) else last + 1 :]
