"""``taximeter apply``: make the directory say what a file says.

Must never delete or revoke anything: what the file does not name stays as it is.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.commands.context import actor_name
from gateway.commands.database import opened_directory
from gateway.commands.entities import read_all
from gateway.commands.output import CommandFailed, write_json, write_line, write_note
from gateway.commands.parsing import add_json, show_example
from gateway.directory import Directory
from gateway.directory_model import Entity
from gateway.directory_nouns import Nouns
from gateway.org_file import Org, OrgFileBroken, changed_fields, read_org

_FIXED = ("team", "project")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between the directory and the file.

    Attributes:
        noun: What differs.
        id: Its id.
        action: ``create`` or ``update``.
        fields: Values before and after, by field; of a new one only after.
        do: Makes the directory follow; a new key's secret comes back.
    """

    noun: str
    id: str
    action: str
    fields: dict[str, tuple[Any, Any]]
    do: Callable[[], str | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument("-f", "--file", type=Path, required=True, help="the file to follow")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only show what would change; the exit code is 1 where something would",
    )
    add_json(parser)
    parser.epilog = show_example(
        "taximeter apply --dry-run -f org.yaml\ntaximeter apply -f org.yaml"
    )


def run(args: argparse.Namespace) -> int:
    """Compare, show, and change.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: The file cannot be used.
    """
    try:
        org = read_org(args.file, os.environ)
    except OrgFileBroken as broken:
        raise CommandFailed(f"the file cannot be used:\n{broken}", exit_code=2) from broken
    with opened_directory(args) as directory:
        whose = directory.organization
        if org.organization not in {None, whose}:
            raise CommandFailed(
                f"{args.file} is for organization {org.organization}, the settings for {whose}",
                exit_code=2,
            )
        steps = list(_steps(directory, org))
        secrets = {} if args.dry_run else _carry_out(steps, is_json=args.json)
    if args.json:
        shown = [_row(step) | _secret(step, secrets) for step in steps]
        write_json({"dry_run": args.dry_run, "changes": shown})
    elif args.dry_run:
        for step in steps:
            _write_step(step)
    if not args.json and not steps:
        write_line("everything is as the file says")
    return 1 if args.dry_run and steps else 0


def _steps(directory: Directory, org: Org) -> Iterator[Step]:
    actor = actor_name()

    def make_key(key: Any) -> Callable[[], str]:  # noqa: ANN401 - whatever the noun makes
        return lambda: directory.keys.create(key, actor=actor).secret

    def make(nouns: Any, one: Any) -> Callable[[], None]:  # noqa: ANN401 - likewise
        def create() -> None:
            nouns.create(one, actor=actor)

        return create

    yield from _differences("team", directory.teams, org.teams, make, actor)
    yield from _differences("project", directory.projects, org.projects, make, actor)
    yield from _differences("key", directory.keys, org.keys, lambda _, one: make_key(one), actor)
    yield from _differences("budget", directory.budgets, org.budgets, make, actor)


def _differences(
    noun: str,
    nouns: Nouns[Any],
    wanted: tuple[Entity, ...],
    make: Callable[[Any, Any], Callable[[], str | None]],
    actor: str,
) -> Iterator[Step]:
    known = {entity.id: entity for entity in read_all(nouns.page)}
    for entity in wanted:
        before = known.get(entity.id)
        if before is None:
            fields = {name: (None, value) for name, value in _given(entity).items()}
            do = make(nouns, entity)
            yield Step(noun=noun, id=entity.id, action="create", fields=fields, do=do)
            continue
        changed = changed_fields(before, entity)
        fixed = sorted(changed.keys() & set(_FIXED))
        if fixed:
            was, now = changed[fixed[0]]
            raise CommandFailed(
                f"{noun} {entity.id} is of {fixed[0]} {was}, and cannot move to {now}: reports and"
                " budgets rest on it"
            )
        if changed:
            yield Step(
                noun=noun,
                id=entity.id,
                action="update",
                fields=changed,
                do=_updating(
                    nouns, entity.id, {name: now for name, (_, now) in changed.items()}, actor
                ),
            )


def _updating(
    nouns: Nouns[Any], name: str, fields: dict[str, Any], actor: str
) -> Callable[[], None]:
    def update() -> None:
        nouns.update(name, fields, actor=actor)

    return update


def _given(entity: Entity) -> dict[str, Any]:
    """The fields of a new entity that say something."""
    shown = {name: getattr(entity, name) for name in entity.__dataclass_fields__}
    hidden = ("id", "managed_by", "created_at")
    return {name: value for name, value in shown.items() if value and name not in hidden}


def _carry_out(steps: list[Step], *, is_json: bool) -> dict[str, str]:
    secrets: dict[str, str] = {}
    for step in steps:
        secret = step.do()
        if not is_json:
            _write_step(step)
        if secret is not None:
            secrets[step.id] = secret
            if not is_json:
                write_line(f"    secret {secret}")
    if secrets and not is_json:
        write_note("Secrets are kept nowhere and cannot be shown again.")
    return secrets


def _write_step(step: Step) -> None:
    sign = "+" if step.action == "create" else "~"
    write_line(f"{sign} {step.noun} {step.id}")
    for name, (before, after) in step.fields.items():
        was = "" if step.action == "create" else f"{_text(before)} -> "
        write_line(f"    {name}: {was}{_text(after)}")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items()) or "nothing"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(value)


def _row(step: Step) -> dict[str, Any]:
    fields = {
        name: {"before": _plain(before), "after": _plain(after)}
        for name, (before, after) in step.fields.items()
    }
    return {"action": step.action, "noun": step.noun, "id": step.id, "fields": fields}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | None) else str(value)


def _secret(step: Step, secrets: dict[str, str]) -> dict[str, str]:
    return {"secret": secrets[step.id]} if step.noun == "key" and step.id in secrets else {}
