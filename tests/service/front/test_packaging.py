"""What is shipped to run the service: containers and units that are bounded, checked and hold no secret."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from caudal.cli.main import app

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
_KEYS = {
    "_",
    "image",
    "build",
    "restart",
    "init",
    "read_only",
    "cap_drop",
    "security_opt",
    "tmpfs",
    "environment",
    "secrets",
    "volumes",
    "depends_on",
    "command",
    "ports",
    "mem_limit",
    "memswap_limit",
    "pids_limit",
    "stop_grace_period",
    "healthcheck",
    "shm_size",
    "deploy",
}


def test_there_are_a_server_a_worker_with_a_gpu_a_broker_and_a_database() -> None:
    assert set(SERVICES) == {"server", "worker", "broker", "database"}
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_checked_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= _KEYS
    assert service["mem_limit"]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_container_refers_to_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    named = {
        volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(("$", "."))
    }
    assert named <= set(COMPOSE["volumes"])
    waits = service.get("depends_on", {})
    assert set(waits) <= set(SERVICES)
    assert all(how == {"condition": "service_healthy"} for how in waits.values())


def test_only_the_server_is_reached_and_from_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"server"}
    assert all(port.startswith("127.0.0.1:") for port in ports["server"])


def test_no_secret_stands_in_the_files() -> None:
    for path in (ROOT / "compose.yaml", ROOT / "Dockerfile", *UNITS):
        assert not re.search(
            r"(?i)(password|token|secret)\w*[ \t]*[:=][ \t]*['\"]?[a-z0-9]{6,}", path.read_text()
        ), path


def flags(verb: str) -> set[str]:
    root: Any = typer.main.get_command(app)
    return {
        word
        for p in root.commands[verb].params
        if p.param_type_name == "option"
        for word in (*p.opts, *p.secondary_opts)
    }


def test_the_image_has_what_the_settings_of_the_containers_need() -> None:
    found = re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    extras = set(found[1].split(","))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras <= set(known)
    needed = {"gpu"} if "devices" in str(SERVICES["worker"]["deploy"]) else set()
    needed.add(SERVICES["server"]["environment"]["CAUDAL_QUEUE"])
    guide = (ROOT / "docs" / "how-to" / "many-machines.md").read_text()
    needed |= set(re.findall(r"printf '(postgresql)://", guide))
    assert needed == {"celery", "postgresql", "gpu"}
    assert needed <= extras


@pytest.mark.parametrize("name", ["server", "worker"])
def test_a_health_check_runs_what_the_image_has(name: str) -> None:
    kind, program, *words = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    assert program in ("python", "caudal")  # a look for processes finds the container's own init, too
    if program == "caudal":
        assert {word for word in words[1:] if word.startswith("--")} <= flags(words[0])


@pytest.mark.parametrize("name", ["server", "worker"])
def test_the_commands_of_our_containers_exist(name: str) -> None:
    verb, *words = SERVICES[name]["command"]
    assert {word for word in words if word.startswith("--")} <= flags(verb)
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_verb_that_exists_and_gives_jobs_time_to_end(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    service = unit["Service"]
    program, verb, *words = service["ExecStart"].split()
    assert program.endswith("/caudal")
    assert {word for word in words if word.startswith("--")} <= flags(verb)
    assert int(service["TimeoutStopSec"]) >= 60
    assert service["NoNewPrivileges"] == "yes"
    assert service["User"] == "caudal"
    assert service["KillMode"] == "process"  # jobs outlive a server that crashed


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_a_unit(path: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/caudal/bin/caudal", "/bin/true"))
    done = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_the_container_is_not_root_and_starts_the_command() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    words = [line.split()[0] for line in lines if re.match(r"[A-Z]+ ", line)]
    assert words.count("FROM") == 2
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert 'ENTRYPOINT ["caudal"]' in lines
    assert not [line for line in lines if line.startswith("FROM") and ":latest" in line]
