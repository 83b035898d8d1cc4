"""Each module here drives its cases once, together; each case is then judged by a test of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from faults.casefiles import FAULTS
from faults.harness import Results


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the module's `drive` saw of the cases that were selected."""
    if not FAULTS.is_dir():
        pytest.skip("the fault cases are not beside the project")
    wanted = [
        item.callspec.params["case"]
        for item in request.session.items
        if getattr(item, "module", None) is request.module and "case" in getattr(item, "callspec", _NONE).params
    ]
    folder: Path = tmp_path_factory.mktemp("gateway")
    driven: Results = asyncio.run(request.module.drive(wanted, folder))
    return driven


class _NONE:
    params: dict[str, str] = {}  # noqa: RUF012
