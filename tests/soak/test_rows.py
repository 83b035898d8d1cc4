"""Every case of load_soak.yaml has a test."""

from __future__ import annotations

from pathlib import Path

import yaml
from soak.rows import ROWS


def test_every_load_case_is_driven_by_a_test_that_exists(shared: Path) -> None:
    cases = yaml.safe_load((shared / "faults" / "load_soak.yaml").read_text())["cases"]
    assert [case["id"] for case in cases] == list(ROWS)
    for module, name, _ in ROWS.values():
        assert f"def {name}(" in Path(__file__).with_name(f"{module}.py").read_text()
