"""What Docker would be given: files that exist, pinned images, and settings the gateway knows."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway.cli import COMMANDS
from gateway.settings import load_settings
from gateway.traffic.local import company_settings
from gateway.traffic.provider import ALERTS_PATH, alert_lines
from tests.house.tree import ROOT

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
# Keys of a service in the compose specification that this file may use.
# Source: https://github.com/compose-spec/compose-spec/blob/main/05-services.md, 2026-11-23.
KNOWN: Final = frozenset(
    {
        "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck",
        "image", "init", "logging", "ports", "profiles", "read_only", "restart", "secrets",
        "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes",
    }
)  # fmt: skip

services = pytest.mark.parametrize("name", sorted(SERVICES))


@services
def test_a_service_uses_keys_that_exist(name: str) -> None:
    """A misspelt key would be refused, or worse: ignored."""
    assert set() == SERVICES[name].keys() - KNOWN


@services
def test_every_image_is_pinned(name: str) -> None:
    """No image changes under its tag's name by next week."""
    tag = SERVICES[name]["image"].rpartition(":")[2]

    assert re.match(r"v?\d+\.\d+", tag), tag


@services
def test_every_service_is_watched_bounded_and_restarted(name: str) -> None:
    """A health check, limits, and no more rights than needed."""
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]

    assert {"cpus", "memory"} <= limits.keys()
    assert "unless-stopped" == service["restart"]
    assert ["no-new-privileges:true"] == service["security_opt"]
    assert "test" in service["healthcheck"] or service["healthcheck"]["disable"]


@services
def test_what_a_service_waits_for_can_become_healthy(name: str) -> None:
    """Only what has a health check, and is not of another profile, can be waited for."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert "service_healthy" == how["condition"]
        assert "test" in SERVICES[other]["healthcheck"]
        assert not SERVICES[other].get("profiles")


@services
def test_every_mount_has_its_source(name: str) -> None:
    """Files of the project exist; named volumes are declared."""
    for mount in SERVICES[name].get("volumes", ()):
        source = mount.split(":")[0]
        if not source.startswith("./"):
            assert source in COMPOSE["volumes"]
        else:
            assert (ROOT / source).exists(), source
    for secret in SERVICES[name].get("secrets", ()):
        named = secret if isinstance(secret, str) else secret["source"]
        assert named in COMPOSE["secrets"]


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    """Dashboards, the account of the ledger and its password are where the files look for them."""
    folder = ROOT / "grafana" / "provisioning"
    boards = "".join(path.read_text("utf-8") for path in (folder / "dashboards").iterdir())
    sources = "".join(path.read_text("utf-8") for path in (folder / "datasources").iterdir())
    grafana = SERVICES["grafana"]
    mounts = [mount.split(":")[1] for mount in grafana["volumes"]]
    targets = [one if isinstance(one, str) else one["target"] for one in grafana["secrets"]]
    hosts = re.findall(r"url: (?:http://)?([a-z]+):\d+", sources)

    assert set(re.findall(r"path: (\S+)", boards)) <= set(mounts)
    assert set(re.findall(r"/run/secrets/(\w+)", sources)) <= set(targets)
    assert set(re.findall(r"\$([A-Z_]{3,})", sources)) <= grafana["environment"].keys()
    assert {"prometheus", "postgres"} == set(hosts)
    assert SERVICES.keys() >= set(hosts)


def test_ports_are_unique_and_of_this_machine_only() -> None:
    """Nothing is open to the network unless somebody decides so."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    outside = [port.split(":")[1] for port in ports]

    assert len(set(outside)) == len(outside)
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_are_files_and_never_stand_in_the_file(tmp_path: Path) -> None:
    """Each secret is made by the script; a second run keeps it."""
    folder = tmp_path / "stack"
    folder.mkdir()
    shutil.copy(ROOT / "stack" / "secrets.sh", folder)
    made: dict[str, str] = {}
    for _ in range(2):
        subprocess.run(["sh", str(folder / "secrets.sh")], check=True, capture_output=True)
        now = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
        assert made in ({}, now)
        made = now

    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert wanted == made.keys()
    assert all(len(text) >= 48 for text in made.values())
    assert len(set(made.values())) == len(made)
    assert 0o700 == (folder / "secrets").stat().st_mode & 0o777
    assert "stack/secrets" in (ROOT / ".gitignore").read_text()


def test_the_gateway_of_the_stack_would_start(tmp_path: Path) -> None:
    """Its settings are known, and its providers are those of the company."""
    text = (ROOT / "stack" / "gateway.yaml").read_text("utf-8")
    secrets = {"admin_token": "t" * 24, "database_url": "postgresql://taximeter:x@postgres/ledger"}
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("file:/run/secrets", f"file:{tmp_path}"))

    settings = load_settings(path, {})
    written = yaml.safe_load(text)
    company = company_settings("http://provider:8081")

    assert {part: written[part] for part in company} == company
    assert secrets["database_url"] == settings.storage.database_url
    assert settings.server.workers == 2
    assert str(settings.storage.journal_dir).startswith("/data/")


def test_commands_of_the_services_exist() -> None:
    """What the image is started with is a command of the program."""
    for name in ("gateway", "provider", "traffic"):
        command = SERVICES[name]["command"]
        assert command[0] in COMMANDS
        assert all(isinstance(word, str) for word in command)


def test_the_image_runs_without_rights_and_from_the_lock() -> None:
    """Hashed wheels only, no account of root, a health check."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    last = text.rpartition("\nFROM ")[2]

    assert 2 == text.count("--require-hashes --only-binary :all:")
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.11.14-slim-bookworm"] * 2
    assert "USER 10001:10001" in last
    assert "HEALTHCHECK" in last
    assert "pip install" not in last
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_driver_of_the_image_is_the_one_that_is_tested() -> None:
    """The lock of the PostgreSQL driver is a part of the lock of the tests."""
    driver = (ROOT / "stack" / "psycopg.lock").read_text("utf-8")

    assert driver in (ROOT / "requirements-dev.lock").read_text("utf-8")
    assert "psycopg-binary==" in driver


def test_alerts_go_to_somebody_who_reads_them() -> None:
    """Alertmanager's receiver is the address the demo provider writes alerts down at."""
    text = (ROOT / "grafana" / "alertmanager" / "alertmanager.yml").read_text("utf-8")
    routing = yaml.safe_load(text)
    names = {receiver["name"] for receiver in routing["receivers"]}
    urls = [hook["url"] for one in routing["receivers"] for hook in one["webhook_configs"]]

    assert {route["receiver"] for route in [routing["route"], *routing["route"]["routes"]]} <= names
    assert [f"http://provider:8081{ALERTS_PATH}"] == urls


def test_an_alert_is_written_down_in_a_line() -> None:
    """State, name and summary; what is missing is left out."""
    body = (
        b'{"alerts": [{"status": "firing", "labels": {"alertname": "BudgetGone"},'
        b' "annotations": {"summary": "search is at 100 %"}}, {"status": "resolved"}]}'
    )

    assert ["alert firing BudgetGone search is at 100 %", "alert resolved"] == alert_lines(body)
    with pytest.raises(ValueError, match="list of alerts"):
        alert_lines(b"[]")


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool is installed here")
def test_alertmanager_takes_its_settings() -> None:
    """The program's own check."""
    path = ROOT / "grafana" / "alertmanager" / "alertmanager.yml"
    subprocess.run(["amtool", "check-config", str(path)], check=True, capture_output=True)


def _has_compose() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return not subprocess.run([docker, "compose", "version"], capture_output=True).returncode


@pytest.mark.skipif(not _has_compose(), reason="no docker compose is installed here")
def test_docker_compose_takes_the_file() -> None:
    """The client's own check."""
    command = ["docker", "compose", "--profile", "traffic", "config", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
