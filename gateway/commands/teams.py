"""``taximeter teams``. Must never change a team that the settings file owns."""

import argparse
from typing import Final

from gateway.commands.context import actor_name
from gateway.commands.database import opened_directory
from gateway.commands.entities import Noun, add_tags, list_all, say_done, show_one
from gateway.commands.parsing import Actions, add_json
from gateway.directory_model import Team

_NOUN: Final = Noun(
    plural="teams",
    columns={
        "ID": lambda team: team.id,
        "NAME": lambda team: team.name,
        "TAGS": lambda team: team.tags,
        "FROM": lambda team: team.managed_by,
    },
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every team", "list --json"))
    make = actions.add("create", "create a team", "create search --name Search --tag env=prod")
    make.add_argument("id", help="id of the new team")
    make.add_argument("--name", help="name for people; the id unless given")
    add_tags(make)
    add_json(make)
    show = actions.add("show", "show a team", "show search")
    show.add_argument("id")
    add_json(show)
    drop = actions.add("delete", "delete a team that has no projects", "delete search")
    drop.add_argument("id")


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    with opened_directory(args) as directory:
        match args.action:
            case "list":
                return list_all(_NOUN, directory.teams.page, args)
            case "create":
                team = Team(id=args.id, name=args.name or args.id, tags=dict(args.tag))
                return show_one(_NOUN, directory.teams.create(team, actor=actor_name()), args)
            case "show":
                return show_one(_NOUN, directory.teams.load(args.id), args)
            case _:
                directory.teams.delete(args.id, actor=actor_name())
                return say_done("team", args.id, "deleted")
