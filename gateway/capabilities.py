"""What happens to every parameter at every model, as the tables that the transforms use say it."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.contract import Row
from gateway.hub import PARAMS, Json
from gateway.router import Router
from gateway.routes import Attempt


def listed(name: str) -> Json:
    """A model as `/v1/models` shows it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "sluiceway"}


def capabilities(router: Router, names: Iterable[str]) -> list[Json]:
    """For each model name: its deployments, each with the decision for every parameter of the front door."""
    return [
        {"id": name, "object": "model.capabilities", "deployments": [of(each) for each in router.behind(name)]}
        for name in names
    ]


def of(attempt: Attempt) -> Json:
    """One deployment: its provider, its upstream model and the decisions."""
    table = attempt.provider.table(attempt.target)
    return {
        "deployment": attempt.name,
        "provider": attempt.provider.name,
        "model": attempt.target.model,
        "unsupported_params": attempt.target.unsupported,
        "parameters": {name: decision(table[name]) for name in sorted(PARAMS)},
    }


def decision(row: Row) -> Json:
    """A row as JSON: the decision, and where there are any the name it travels under and a note."""
    said = {"decision": row.decision, "as": row.to, "note": row.note}
    return {name: value for name, value in said.items() if value}
