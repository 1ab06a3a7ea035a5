"""``taximeter keys``. Must never show a secret but once, to whoever made the key."""

import argparse
from typing import Final

from gateway.commands.context import actor_name
from gateway.commands.database import opened_directory
from gateway.commands.entities import (
    Noun,
    add_tags,
    list_all,
    say_done,
    show_one,
)
from gateway.commands.output import write_note
from gateway.commands.parsing import Actions, add_json, parse_instant, parse_list
from gateway.directory_model import Key

_NOUN: Final = Noun(
    plural="keys",
    columns={
        "ID": lambda key: key.id,
        "PROJECT": lambda key: key.project,
        "MODELS": lambda key: ", ".join(key.models),
        "EXPIRES": lambda key: key.expires_at,
        "TAGS": lambda key: key.tags,
        "FROM": lambda key: key.managed_by,
    },
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every key that works, without its secret", "list --json"))
    make = actions.add(
        "create",
        "create a key and show its secret once",
        "create rag-ci --project rag --models 'openai/gpt-5*,demo/*' --expires-at 2027-01-31",
    )
    make.add_argument("id", help="id of the new key")
    make.add_argument("--project", required=True, help="project its calls belong to")
    make.add_argument(
        "--models",
        type=parse_list,
        default=("*",),
        metavar="PATTERN[,PATTERN]",
        help="what it may call: provider/model or a bare model (everything unless given)",
    )
    make.add_argument(
        "--expires-at", type=parse_instant, metavar="T", help="when it stops working (never)"
    )
    add_tags(make)
    add_json(make)
    show = actions.add("show", "show a key, without its secret", "show rag-ci")
    show.add_argument("id")
    add_json(show)
    drop = actions.add("revoke", "revoke a key for good, within a second", "revoke rag-ci")
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
                return list_all(_NOUN, directory.keys.page, args)
            case "create":
                key = Key(
                    id=args.id,
                    project=args.project,
                    models=args.models,
                    tags=dict(args.tag),
                    expires_at=args.expires_at,
                )
                issued = directory.keys.create(key, actor=actor_name())
                show_one(_NOUN, issued.key, args, ("secret", issued.secret))
                write_note("The secret is kept nowhere and cannot be shown again.")
                return 0
            case "show":
                return show_one(_NOUN, directory.keys.load(args.id), args)
            case _:
                directory.keys.delete(args.id, actor=actor_name())
                return say_done("key", args.id, "revoked")
