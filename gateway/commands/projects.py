"""``taximeter projects``. Must never change a project that the settings file owns."""

import argparse
from typing import Final

from gateway.commands.context import actor_name
from gateway.commands.database import opened_directory
from gateway.commands.entities import Noun, add_tags, list_all, say_done, show_one
from gateway.commands.parsing import Actions, add_json
from gateway.directory_model import Project

_NOUN: Final = Noun(
    plural="projects",
    columns={
        "ID": lambda project: project.id,
        "TEAM": lambda project: project.team,
        "NAME": lambda project: project.name,
        "TAGS": lambda project: project.tags,
        "FROM": lambda project: project.managed_by,
    },
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every project", "list --json"))
    make = actions.add("create", "create a project", "create rag --team search --tag env=prod")
    make.add_argument("id", help="id of the new project")
    make.add_argument("--team", required=True, help="team that bears its cost")
    make.add_argument("--name", help="name for people; the id unless given")
    add_tags(make)
    add_json(make)
    show = actions.add("show", "show a project", "show rag")
    show.add_argument("id")
    add_json(show)
    drop = actions.add("delete", "delete a project that has no keys", "delete rag")
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
                return list_all(_NOUN, directory.projects.page, args)
            case "create":
                project = Project(
                    id=args.id, team=args.team, name=args.name or args.id, tags=dict(args.tag)
                )
                made = directory.projects.create(project, actor=actor_name())
                return show_one(_NOUN, made, args)
            case "show":
                return show_one(_NOUN, directory.projects.load(args.id), args)
            case _:
                directory.projects.delete(args.id, actor=actor_name())
                return say_done("project", args.id, "deleted")
