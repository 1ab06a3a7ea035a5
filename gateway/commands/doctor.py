"""``taximeter doctor``: look at everything a gateway needs and say how to mend what is wrong.

Must never change anything, and never use the network unless ``--probe`` asks for it.
"""

import argparse
import os
from collections.abc import Iterator
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands.doctor_budgets import check_budgets
from gateway.commands.doctor_checks import (
    Finding,
    check_admin,
    check_journal,
    check_packages,
    check_prices,
    check_provider,
    check_python,
    probe_provider,
)
from gateway.commands.doctor_database import check_database
from gateway.commands.doctor_redis import check_redis
from gateway.commands.output import Progress, write_json, write_line
from gateway.commands.parsing import add_json, show_example
from gateway.settings import Settings, SettingsBroken, find_config, load_settings, warnings_of

_ORDER: Final = ("ok", "warn", "fail")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument(
        "--probe", action="store_true", help="also connect to each provider, sending nothing"
    )
    add_json(parser)
    parser.epilog = show_example("taximeter doctor --config taximeter.yaml --probe")


def run(args: argparse.Namespace) -> int:
    """Check everything.

    Args:
        args: As parsed.

    Returns:
        1 when anything failed.
    """
    with Progress("checks") as progress:
        findings = []
        for finding in _findings(args):
            findings.append(finding)
            progress.step()
    worst = max(findings, key=lambda finding: _ORDER.index(finding.state)).state
    if args.json:
        write_json({"state": worst, "checks": [_row(finding) for finding in findings]})
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            write_line(f"{finding.state:<4}  {finding.what:<{width}}  {finding.message}")
            if finding.mend:
                write_line(f"{'':<4}  {'':<{width}}  -> {finding.mend}")
    return 1 if worst == "fail" else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    clock = SystemClock()
    yield check_python()
    yield from check_packages()
    yield check_prices(clock.now())
    try:
        settings = load_settings(args.config, os.environ)
    except SettingsBroken as broken:
        for problem in broken.problems:
            yield Finding.fail("settings", str(problem), "mend it; the rest is checked afterwards")
        return
    yield Finding.ok("settings", str(find_config(args.config, os.environ) or "embedded defaults"))
    for warning in warnings_of(settings):
        yield Finding.warn("settings", warning, "")
    yield from check_admin(settings)
    yield from check_database(settings)
    yield from check_redis(settings)
    yield from check_budgets(settings, clock.now())
    yield from check_journal(settings)
    yield from _provider_findings(settings, is_probing=args.probe)


def _provider_findings(settings: Settings, *, is_probing: bool) -> Iterator[Finding]:
    if not settings.providers:
        yield Finding.ok("providers", "none configured: the built-in demo answers with fake text")
    for name, provider in settings.providers.items():
        has_own = any(one.provider == name for one in settings.self_hosted)
        unpriced = settings.metering.unpriced
        yield check_provider(name, provider, unpriced, has_own_prices=has_own)
        if is_probing and provider.base_url is not None:
            yield probe_provider(name, provider.base_url)


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.what,
        "state": finding.state,
        "message": finding.message,
        "mend": finding.mend or None,
    }
