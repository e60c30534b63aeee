"""The proxy's and systemd's files: read by the programs they are for, where these are, and in step with the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mla_serve.serve.bento.drain import GRACE_S
from mla_serve.serve.bento.run_folder import METRICS
from mla_serve.serve.settings import PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = Path(__file__).parents[2]
UNIT = (DEPLOY / "systemd" / "mla-serve.service").read_text(encoding="utf-8")
PROXY = (DEPLOY / "nginx" / "mla-serve.conf").read_text(encoding="utf-8")


def test_nginx_reads_its_file(tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        pytest.skip("there is no nginx")
    whole = tmp_path / "nginx.conf"
    include = DEPLOY / "nginx" / "mla-serve.conf"
    whole.write_text(
        f"events {{}}\npid {tmp_path}/pid;\nerror_log stderr;\nhttp {{ access_log off; include {include}; }}\n"
    )
    done = subprocess.run([nginx, "-t", "-c", str(whole)], capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr, done.stderr


def test_systemd_reads_its_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd")
    unit = tmp_path / "mla-serve.service"
    unit.write_text(UNIT.replace("/opt/mla-serve/.venv/bin/python", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "mla-serve" in line] == []


def test_the_files_of_metrics_are_kept_in_memory() -> None:
    """On a full disk, writing to them would end the worker."""
    (folder,) = re.findall(rf"{METRICS}=(\S+)", UNIT)
    assert folder.startswith("/run/")
    (pod,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "base" / "deployment.yaml").read_text(encoding="utf-8"))
    spec = pod["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (path,) = (each["value"] for each in container["env"] if each["name"] == METRICS)
    (name,) = (mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == path)
    (volume,) = (each for each in spec["volumes"] if each["name"] == name)
    assert volume["emptyDir"]["medium"] == "Memory"


def seconds(name: str, text: str) -> float:
    return float(re.search(rf"^\s*{name}[= ](\d+)", text, re.MULTILINE)[1])  # type: ignore[index]


def test_both_wait_as_long_as_an_answer_may_take() -> None:
    settings = Settings()
    assert seconds("TimeoutStopSec", UNIT) >= settings.drain_s + settings.request_timeout_s + GRACE_S
    assert seconds("proxy_read_timeout", PROXY) > settings.request_timeout_s
    assert seconds("client_max_body_size", PROXY) * 2**20 >= settings.max_batch_body_bytes


def test_settings_that_they_name_exist() -> None:
    names = set(re.findall(rf"\b{PREFIX}([A-Z_]+)\b", UNIT + PROXY)) - {"NAME"}
    assert {name.lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("module", ["deploy.sizing", "deploy.demo.microphone"])
def test_a_bundle_that_is_missing_is_one_line(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--model", "no/such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
