"""The rules for Prometheus parse, fire where they must and nowhere else, and say what to do.

Must never start anything but promtool.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
RULES: Final = sorted((ROOT / "grafana/prometheus/rules").glob("*.yml"))
CASES: Final = sorted((ROOT / "grafana/prometheus/tests").glob("*.yml"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no Prometheus is installed"
)


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule of a kind, ``alert`` or ``record``."""
    groups = (group for path in RULES for group in yaml.safe_load(path.read_text())["groups"])
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def promtool(*arguments: str | Path) -> str:
    """Run promtool; what it says."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_configuration() -> None:
    """Its own checker finds no fault with the configuration and the rules it names."""
    promtool("check", "config", ROOT / "grafana/prometheus/prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_where_they_must_and_nowhere_else(cases: Path) -> None:
    """promtool plays the series of every case."""
    promtool("test", "rules", cases)


def test_every_alert_has_a_case_and_a_section_in_the_runbook() -> None:
    """No alert comes without something to do, a severity and a test."""
    names = [rule["alert"] for rule in rules("alert")]
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    cases = "".join(path.read_text() for path in CASES)

    assert sections == names
    assert [name for name in names if f'alertname="{name}"' not in cases] == []
    for rule in rules("alert"):
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
