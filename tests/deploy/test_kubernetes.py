"""The Kubernetes examples: valid, hardened, patient enough to drain, and with a configuration that loads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.config.types import Config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLES = sorted(DEPLOY.glob("kubernetes-*.yaml"))
# The release that the example says it needs.
NEEDED = re.compile(r"Needs Kubernetes (1\.\d+)")
PAGES = {"/livez", "/readyz"}
CUT = 2
MARGIN = 2
example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def one(path: Path, kind: str) -> dict[str, Any]:
    (found,) = (each for each in objects(path) if each["kind"] == kind)
    return found


def pod(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = one(path, "Deployment")["spec"]["template"]["spec"]
    return found


def containers(path: Path) -> Iterator[dict[str, Any]]:
    yield from pod(path).get("initContainers", ())
    yield from pod(path)["containers"]


def gateway(path: Path) -> dict[str, Any]:
    (found,) = (each for each in containers(path) if each["name"] == "sluiceway")
    return found


def configuration(path: Path, folder: Path) -> Config:
    """The example's gateway.yaml as it is where its secrets are mounted."""
    text = one(path, "ConfigMap")["data"]["gateway.yaml"]
    (folder / "openai").write_text("sk-from-a-secret")
    loaded = load("gateway.yaml", os.environ, Registry(), text=text.replace("/run/secrets/sluiceway", str(folder)))
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    return loaded.config


def test_there_is_one_for_a_sidecar_and_one_for_a_cluster() -> None:
    assert [path.stem for path in EXAMPLES] == ["kubernetes-deployment", "kubernetes-sidecar"]


@example
def test_every_object_is_what_its_schema_says(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    needed = NEEDED.search(path.read_text())
    assert needed
    for each in objects(path):
        for release in (needed[1], "1.34"):
            validate(each, release, strict=True)


@example
def test_a_wrong_object_would_be_found(path: Path) -> None:
    library = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    wrong = one(path, "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(library.ValidationError):
        library.validate(wrong, "1.34", strict=True)


@example
def test_the_pod_is_given_longer_than_the_drain(path: Path, tmp_path: Path) -> None:
    before = max((waits(each) for each in containers(path)), default=0)
    drain = configuration(path, tmp_path).server.drain
    assert pod(path)["terminationGracePeriodSeconds"] >= before + drain + CUT + MARGIN


def waits(container: dict[str, Any]) -> int:
    """The seconds of a container's preStop."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    return int(hook["sleep"]["seconds"] if "sleep" in hook else hook.get("exec", {"command": ["0"]})["command"][-1])


@example
def test_probes_ask_for_pages_that_exist_where_the_gateway_listens(path: Path, tmp_path: Path) -> None:
    server = configuration(path, tmp_path).server
    ports = {each["name"]: each["containerPort"] for each in gateway(path)["ports"]}
    assert server.admin is not None
    assert ports["admin"] == server.admin.port
    assert ports.get("http", server.listen.port) == server.listen.port
    probes = [gateway(path)[name]["httpGet"] for name in ("startupProbe", "livenessProbe")]
    probes += [gateway(path)["readinessProbe"]["httpGet"]] if "readinessProbe" in gateway(path) else []
    assert {each["port"] for each in probes} == {"admin"}
    assert {each["path"] for each in probes} == PAGES


@example
def test_every_container_may_do_little_and_says_what_it_needs(path: Path) -> None:
    whole = pod(path)["securityContext"]
    assert whole["runAsNonRoot"]
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(path)["automountServiceAccountToken"] is False
    for each in containers(path):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in each["resources"]["limits"]
        assert not each["image"].endswith(":latest")


@example
def test_request_bodies_fit_into_the_memory(path: Path, tmp_path: Path) -> None:
    limit = re.fullmatch(r"(\d+)(Mi|Gi)", gateway(path)["resources"]["limits"]["memory"])
    assert limit
    given = int(limit[1]) << {"Mi": 20, "Gi": 30}[limit[2]]
    assert configuration(path, tmp_path).server.max_buffered <= given / 2


@example
def test_no_secret_lies_in_the_example(path: Path) -> None:
    assert not [each for each in objects(path) if each["kind"] == "Secret"]
    assert "api_key: {file: /run/secrets/sluiceway/openai}" in path.read_text()


def test_the_sidecar_is_native_and_ready_before_the_application() -> None:
    sidecar = gateway(DEPLOY / "kubernetes-sidecar.yaml")
    assert sidecar in pod(DEPLOY / "kubernetes-sidecar.yaml")["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_the_sidecar_is_for_its_own_pod_alone(tmp_path: Path) -> None:
    assert configuration(DEPLOY / "kubernetes-sidecar.yaml", tmp_path).server.listen.host == "127.0.0.1"


def test_the_cluster_s_gateway_asks_for_keys(tmp_path: Path) -> None:
    assert configuration(DEPLOY / "kubernetes-deployment.yaml", tmp_path).keys
