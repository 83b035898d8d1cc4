"""Where requests go: the Developer API by default, Vertex AI where the provider entry names a project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gateway.contract import Problem, Target
from gateway.errors import InvalidRequest

BASE_URL = "https://generativelanguage.googleapis.com"

_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{4,61}[a-z0-9]|[0-9]{6,20}")
_LOCATION = re.compile(r"[a-z]{2,20}(?:-[a-z]{2,20}[0-9]{1,2})?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")
# us and eu are regions of several data centres, at hosts of their own.
_MULTI = ("us", "eu")


def url_of(target: Target, *, stream: bool) -> str:
    """The absolute URL of one call. Raises InvalidRequest for a model name that is no single path segment."""
    call = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
    return f"{_parent(target)}{call}"


def _parent(target: Target) -> str:
    base = target.base_url.rstrip("/")
    vertex = "project" in target.options
    place = _placed(target.model, vertex=vertex)
    name = place.rpartition("/")[2]
    if not _MODEL.fullmatch(name):
        raise InvalidRequest("The model's name cannot stand in the provider's URL.", param="model")
    if not vertex:
        return f"{base}/v1beta/{place}"
    project = quote(str(target.options["project"]), safe=":")
    location = str(target.options.get("location") or "global")
    if base == BASE_URL:
        base = f"https://{_vertex_host(location)}"
    return f"{base}/v1/projects/{project}/locations/{quote(location, safe='')}/{place}"


def _placed(model: str, *, vertex: bool) -> str:
    """Collection and name; a name that holds a slash of its own comes out with nothing behind the last one."""
    own, usual = ("endpoints/", "publishers/google/models/") if vertex else ("tunedModels/", "models/")
    prefix = own if model.startswith(own) else usual
    name = model.removeprefix(prefix).removeprefix("models/")
    return f"{prefix}{name}" if "/" not in name else ""


def _vertex_host(location: str) -> str:
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in _MULTI:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with a provider entry's project and location, or with a deployment's model ("" or "*": any)."""
    problems = []
    project, location = options.get("project"), options.get("location")
    if project is not None and not _PROJECT.fullmatch(str(project)):
        problems.append(Problem("project", "is not the id or number of a Google Cloud project"))
    if location is not None and not _LOCATION.fullmatch(str(location)):
        problems.append(Problem("location", "is not a Google Cloud location such as europe-west4 or global"))
    if location is not None and project is None:
        problems.append(Problem("location", "needs a project: the Developer API has no locations"))
    if options.get("credentials") is not None and project is None:
        problems.append(Problem("credentials", "need a project: they are for Vertex AI"))
    name = _placed(model, vertex=project is not None).rpartition("/")[2]
    if model not in ("", "*") and not _MODEL.fullmatch(name):
        problems.append(Problem("model", "is not a name that can stand in a URL"))
    return problems
