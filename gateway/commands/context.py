"""What most commands need: the settings, the name of who runs them.

Must never let an expected failure through as a traceback: each becomes a sentence with its mend.
"""

import argparse
import os
from pathlib import Path

from gateway.commands.output import CommandFailed
from gateway.settings import Settings, SettingsBroken, find_config, load_settings


def read_settings(args: argparse.Namespace) -> Settings:
    """Load the settings a command works with.

    Args:
        args: With ``config``.

    Returns:
        The settings.

    Raises:
        CommandFailed: They are broken; every problem is in the text.
    """
    try:
        return load_settings(args.config, os.environ)
    except SettingsBroken as broken:
        raise CommandFailed(f"the settings cannot be used:\n{broken}", exit_code=2) from broken


def config_path(args: argparse.Namespace) -> Path | None:
    """Tell which settings file counts.

    Args:
        args: With ``config``.

    Returns:
        The file; ``None`` for the defaults.
    """
    return find_config(args.config, os.environ)


def actor_name() -> str:
    """Name who runs the command, for the audit.

    Returns:
        ``cli:`` and the account's name, or its number where it has none.
    """
    name = os.environ.get("LOGNAME") or os.environ.get("USER")
    return f"cli:{name or os.getuid()}"
