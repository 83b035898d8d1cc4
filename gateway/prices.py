"""What tokens cost: a model's tariff, found in a table by the model's id, and the money that a usage comes to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.contract import Usage

MILLION = 1_000_000
# What may follow a model's name without making it another model: dates, revisions, `-latest`. One digit after a dash
# is another model (claude-opus-4 and claude-opus-4-5), hence no revision. Four at the most: clients choose names, and
# there are exponentially many ways to divide digits into revisions.
_REVISION = re.compile(
    r"(?:[-@:._]?(?:20\d{2}-?\d{2}-?\d{2}|\d{2}-(?:\d{2}|20\d{2})|\d{3,4}|v\d{1,2}(?::\d)?|latest|preview|exp|default)"
    r"|:\d){0,4}"
)
# What may stand before it: a resource name, a publisher's path, the region of an inference profile.
_PATH = re.compile(r"(?:arn:[^/]*|models|publishers/[^/]+/models|projects/.*/models)/")
_REGION = re.compile(r"(?:us-gov|[a-z]{2}|apac|emea|amer)\.(?=[a-z0-9]+\.)|global\.")
# A fine-tuned model is named after its base: ft:gpt-4o-mini-2024-07-18:acme::id
_TUNED = re.compile(r"(ft:[^:]+):.*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tariff:
    """Money for a million tokens; a request with more than `above` tokens of input goes by `beyond` as a whole."""

    input: float
    output: float
    cached: float
    cache_written: float
    currency: str = "USD"
    above: int = 0
    beyond: Tariff | None = None

    def cost(self, usage: Usage, prompt: int = 0) -> float:
        """What this usage comes to; `prompt` is how many tokens the request has when the provider did not say."""
        before = prompt if usage.prompt is None else usage.prompt
        cached, written = usage.cached or 0, usage.cache_written or 0
        tariff = self if self.beyond is None else self._for(before)
        plain = before - cached - written
        return (
            (plain if plain > 0 else 0) * tariff.input
            + cached * tariff.cached
            + written * tariff.cache_written
            + (usage.completion or 0) * tariff.output
        ) / MILLION

    def estimate(self, prompt: int, completion: int) -> float:
        """What a request of so many tokens, nothing of it cached, may come to."""
        tariff = self._for(prompt)
        return (prompt * tariff.input + completion * tariff.output) / MILLION

    def _for(self, prompt: int) -> Tariff:
        tariff = self
        while tariff.beyond is not None and prompt > tariff.above:
            tariff = tariff.beyond
        return tariff


def dearest(tariffs: list[Tariff]) -> Tariff | None:
    """The one by which a request of much input and as much output costs most; None of none."""
    return max(tariffs, key=lambda tariff: tariff.estimate(MILLION, MILLION), default=None)


def find(table: Mapping[str, T], model: str) -> T | None:
    """The entry for a model's id: the longest name that the id is, or is a revision of; None for an unknown model.

    Regions, paths and case do not matter. An entry for the very region stands before one for all of them.
    """
    for spelling in _spellings(model.strip().lower()):
        known = [name for name in table if spelling.startswith(name) and _REVISION.fullmatch(spelling, len(name))]
        if known:
            return table[max(known, key=len)]
    return None


def _spellings(model: str) -> Iterator[str]:
    """The id as it is written, then with less and less around the name."""
    yield model
    if tuned := _TUNED.fullmatch(model):
        yield tuned[1]
    if path := _PATH.match(model):
        model = model[path.end() :]
        yield model
    if region := _REGION.match(model):
        yield model[region.end() :]
