"""What Converse demands of a request: AWS's own validator, and the rules that it only tells with a 400."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

from gateway.hub import Json

TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@cache
def _shape() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
    return service.operation_model("Converse").input_shape


def check(body: Json) -> None:
    """Fail if Bedrock would refuse the body."""
    from botocore.validate import ParamValidator

    report = ParamValidator().validate({"modelId": "m.m", **body}, _shape())
    assert not report.has_errors(), report.generate_report()
    check_tools(body)
    check_turns(body["messages"])
    blocks = [*body.get("system", ()), *(block for turn in body["messages"] for block in turn["content"])]
    assert all(block["text"].strip() for block in blocks if "text" in block)
    points = [b for b in (*blocks, *body.get("toolConfig", {}).get("tools", ())) if "cachePoint" in b]
    assert len(points) <= 4


def check_tools(body: Json) -> None:
    used = [block["toolUse"]["name"] for turn in body["messages"] for block in turn["content"] if "toolUse" in block]
    specs = [tool["toolSpec"] for tool in body.get("toolConfig", {}).get("tools", ()) if "toolSpec" in tool]
    assert specs or not used
    names = [spec["name"] for spec in specs]
    assert len(names) == len(set(names))
    assert all(TOOL_NAME.fullmatch(name) for name in [*names, *used])
    for spec in specs:
        assert spec["description"].strip()
        assert spec["inputSchema"]["json"]["type"] == "object"


def check_turns(turns: list[Json]) -> None:
    assert turns[0]["role"] == "user"
    spoken = [turn["role"] for turn in turns if turn["role"] != "system"]
    assert all(left != right for left, right in pairwise(spoken))
    seen: list[str] = []
    names = []
    waiting: list[str] = []
    for turn in turns:
        content = turn["content"]
        assert content
        kinds = [next(iter(block)) for block in content]
        assert kinds[0] != "cachePoint"
        results = [block["toolResult"]["toolUseId"] for block in content if "toolResult" in block]
        uses = [block["toolUse"]["toolUseId"] for block in content if "toolUse" in block]
        assert results == waiting
        assert not results or turn["role"] == "user"
        assert not uses or turn["role"] == "assistant"
        real = [kind for kind in kinds if kind != "cachePoint"]
        assert real == sorted(real, key=lambda kind: ORDER.get(kind, 1)), real
        assert all(block["toolResult"]["content"] for block in content if "toolResult" in block)
        if turn["role"] == "user" and "document" in kinds:
            assert "text" in kinds
        names += [block["document"]["name"] for block in content if "document" in block]
        waiting = uses
        seen += uses
    assert len(seen) == len(set(seen))
    assert all(TOOL_ID.fullmatch(name) for name in seen)
    assert len(names) == len(set(names))


# Within a turn: results and thinking first, calls last, all else between in the client's order.
ORDER = {"toolResult": 0, "reasoningContent": 0, "toolUse": 2}
