"""The manifests are what Kubernetes understands, and ask for no more rights than the service needs."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mla_serve.serve.settings import PREFIX, Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.30", "1.37"
VARIANTS = ("base", "cpu", "gpu")


@functools.cache
def manifests(variant: str) -> tuple[Any, ...]:
    """Read the base, or let kubectl put an overlay together."""
    if variant == "base":
        paths = sorted(path for path in (FOLDER / "base").glob("*.yaml") if path.name != "kustomization.yaml")
        return tuple(each for path in paths for each in yaml.safe_load_all(path.read_text(encoding="utf-8")))
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl to put the overlay together")
    done = subprocess.run(["kubectl", "kustomize", FOLDER / variant], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def one(variant: str, kind: str) -> Any:
    (found,) = (each for each in manifests(variant) if each["kind"] == kind)
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_fits_its_schema(variant: str, version: str) -> None:
    kinds = set()
    for manifest in manifests(variant):
        if variant == "base" and manifest["kind"] == "Deployment":  # what the overlays and kustomize add
            labels = {"app.kubernetes.io/name": "mla-serve"}
            manifest = {**manifest, "spec": {**manifest["spec"], "selector": {"matchLabels": labels}}}
        kubernetes_validate.validate(manifest, version, strict=True)
        kinds.add(manifest["kind"])
    assert kinds == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    }


def test_the_schema_is_looked_at() -> None:
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_pods_may_do_as_little_as_possible(variant: str) -> None:
    pod = one(variant, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/run/metrics"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert set(container["resources"]) == {"requests", "limits"}
    network = one(variant, "NetworkPolicy")["spec"]
    assert set(network["policyTypes"]) == {"Ingress", "Egress"}
    assert not network.get("egress")


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_what_belongs_together_finds_each_other(variant: str) -> None:
    deployment = one(variant, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        one(variant, "Service")["spec"]["selector"],
        one(variant, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(variant, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels.items()
    target = one(variant, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # else each deployment would undo the autoscaler


def settings_of(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in container["env"]:
        if variable["name"].startswith(PREFIX):
            yield variable["name"].removeprefix(PREFIX).lower(), variable["value"]


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_settings_exist_and_leave_time_to_drain(variant: str) -> None:
    pod = one(variant, "Deployment")["spec"]["template"]["spec"]
    settings = Settings(**dict(settings_of(pod["containers"][0])))
    assert settings.log_format == "json"
    assert settings.drain_s + settings.request_timeout_s + 5 < pod["terminationGracePeriodSeconds"]


def test_the_autoscaler_looks_at_a_metric_that_the_adapter_offers() -> None:
    names = {
        m["pods"]["metric"]["name"] for m in one("base", "HorizontalPodAutoscaler")["spec"]["metrics"] if "pods" in m
    }
    adapter = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    assert names == {rule["name"]["matches"] for rule in adapter["rules"]["custom"]}


def test_a_pod_has_room_for_its_workers_and_the_bodies_that_they_may_hold() -> None:
    """A worker stays below 250 MiB at rest (tests/serve/bento/test_service.py); bodies are bounded by tests/serve/http/test_memory.py."""
    overlay = (FOLDER / "cpu" / "kustomization.yaml").read_text(encoding="utf-8")
    (patch,) = (each["patch"] for each in yaml.safe_load(overlay)["patches"])
    values = [each["value"] for each in yaml.safe_load(patch)]
    workers = next(int(value["value"]) for value in values if value.get("name") == "MLA_WORKERS")
    limit = next(value["limits"]["memory"] for value in values if "limits" in value)
    asked = next(value["requests"]["memory"] for value in values if "requests" in value)
    held = Settings.model_fields["max_held_bytes"].default // 2**20
    assert limit.endswith("Gi")
    assert asked.endswith("Mi")
    assert 1024 * int(limit[:-2]) >= workers * (250 + held)
    assert int(asked[:-2]) >= workers * 250
