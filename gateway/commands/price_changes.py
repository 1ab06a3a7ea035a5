"""``taximeter prices set | override | end-override``: each makes a version, nothing is edited.

Must never take a price from anything but its own arguments.
"""

import argparse
import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from gateway.clock import SystemClock
from gateway.commands.books import opened_prices
from gateway.commands.context import actor_name, read_settings
from gateway.commands.database import opened_directory
from gateway.commands.entities import instant_text, read_all
from gateway.commands.output import CommandFailed, write_fields, write_json, write_note
from gateway.commands.parsing import Actions, add_json, parse_count, parse_instant
from gateway.prices.asked import Signature
from gateway.prices.edits import NewModel, OverrideWish, RateWish, Wishes, to_edit
from gateway.prices.rows import StoredVersion
from gateway.prices.terms import Standings, stand
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER

_NEAR_MAX: Final = 3

Work = Callable[[argparse.Namespace], int]


def add_arguments(actions: Actions) -> None:
    """Declare the actions that change prices.

    Args:
        actions: Those of ``taximeter prices``.
    """
    put = actions.add(
        "set",
        "set a dated price; the one before it ends where it starts",
        'set openai/gpt-5 input 1.10 --why "price cut of 2026-12-01" --valid-from 2026-12-01\n'
        'set acme/large input 2 --new-model --context-tokens 128000 --why "contract 9"',
    )
    put.add_argument("model", metavar="PROVIDER/MODEL", help="catalog provider and model")
    put.add_argument("meter", type=parse_meter, metavar="METER", help="such as input or output")
    put.add_argument("amount", help="decimal, in --currency for --per units")
    put.add_argument("--per", type=parse_count, default=1_000_000, help="units (1,000,000)")
    put.add_argument("--tier", default=STANDARD_TIER, help="service tier (standard)")
    _add_further(put)
    put.add_argument("--hours", help='weekly window, such as "Mon-Fri 16:30-00:30 UTC"')
    put.add_argument("--source", help="page or contract it stands on (the reason)")
    put.add_argument("--new-model", action="store_true", help="add the model, which is not known")
    put.add_argument("--alias", action="append", default=[], help="another name of a new model")
    put.add_argument("--context-tokens", type=parse_count, metavar="N", help="of a new model")
    put.add_argument("--output-tokens", type=parse_count, metavar="N", help="of a new model")
    _add_dates(put)
    add_signature(put)
    override = actions.add(
        "override",
        "set a negotiated rate beside the published price",
        'override search-2027 --team search --percent -15 --why "contract 7"\n'
        "override flat --provider openai --model gpt-5 --meter input --amount 1 --per 1000000 "
        '--why "contract 8"',
    )
    override.add_argument("id", help="its name; unique")
    for name in ("organization", "team", "project", "provider", "model"):
        override.add_argument(f"--{name}", help=f"holds for this {name} only")
    override.add_argument("--meter", type=parse_meter, help="holds for this meter only")
    override.add_argument("--tier", help="holds in this service tier only")
    override.add_argument("--percent", help="added to the published price; -15 takes 15 %% off")
    override.add_argument("--amount", help="replaces the published price")
    override.add_argument("--per", type=parse_count, help="units the amount is for")
    _add_further(override)
    _add_dates(override)
    add_signature(override)
    end = actions.add(
        "end-override",
        "end a negotiated rate",
        'end-override search-2027 --at 2027-12-31 --why "not renewed"',
    )
    end.add_argument("id", help="its name")
    end.add_argument(
        "--at", type=parse_instant, metavar="T", help="first instant it no longer holds (now)"
    )
    add_signature(end)


def add_signature(parser: argparse.ArgumentParser) -> None:
    """Add ``--why``, ``--effective-from`` and ``--json``.

    Args:
        parser: That of something that changes prices.
    """
    parser.add_argument("--why", required=True, help="for whoever asks later")
    parser.add_argument(
        "--effective-from",
        type=parse_instant,
        metavar="T",
        help="first instant calls are priced with the new version (now)",
    )
    add_json(parser)


def _add_further(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--over", type=parse_count, help="prompts of more tokens than this")
    parser.add_argument("--region", help="region class, such as eu")
    parser.add_argument("--variant", help="make, such as 1024x1024")
    parser.add_argument("--currency", default="USD", help="ISO 4217 code (USD)")


def _add_dates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--valid-from", type=parse_instant, metavar="T", help="first instant it holds (at once)"
    )
    parser.add_argument(
        "--valid-to", type=parse_instant, metavar="T", help="first instant it no longer holds"
    )


def parse_meter(text: str) -> Meter:
    """Read a meter.

    Args:
        text: Its name.

    Returns:
        The meter.

    Raises:
        ArgumentTypeError: There is none of that name.
    """
    if text not in set(Meter):
        known = ", ".join(meter.value for meter in Meter)
        raise argparse.ArgumentTypeError(f"{text!r} is not a meter; there are {known}")
    return Meter(text)


def _set(args: argparse.Namespace) -> int:
    provider, slash, model = args.model.partition("/")
    if not slash or not provider or not model:
        raise CommandFailed(f"{args.model!r} is not provider/model", exit_code=2)
    new = None
    if args.new_model:
        new = NewModel(
            aliases=tuple(args.alias),
            context_tokens_max=args.context_tokens,
            output_tokens_max=args.output_tokens,
        )
    rate = RateWish(
        provider=_catalog_name(args, provider),
        model=model,
        meter=args.meter,
        amount=args.amount,
        per=args.per,
        tier=args.tier,
        over=args.over,
        region=args.region,
        variant=args.variant,
        hours=args.hours,
        currency=args.currency,
        valid_from=args.valid_from,
        valid_to=args.valid_to,
        source=args.source,
        new_model=new,
    )
    return _post(args, Wishes(rates=[rate]))


def _override(args: argparse.Namespace) -> int:
    override = OverrideWish(
        id=args.id,
        organization=args.organization,
        team=args.team,
        project=args.project,
        provider=None if args.provider is None else _catalog_name(args, args.provider),
        model=args.model,
        meter=args.meter,
        tier=args.tier,
        over=args.over,
        region=args.region,
        variant=args.variant,
        percent=args.percent,
        amount=args.amount,
        per=args.per,
        currency=args.currency,
        valid_from=args.valid_from,
        valid_to=args.valid_to,
    )
    code = _post(args, Wishes(overrides=[override]))
    _tell_unknown_payer(args)
    return code


def _tell_unknown_payer(args: argparse.Namespace) -> None:
    """Say that an agreement is with somebody who is not there; it may be that they come later."""
    organization = read_settings(args).organization
    if args.organization not in (None, organization):
        _tell_unknown("organization", args.organization, [organization] if organization else [])
    with opened_directory(args) as directory:
        if args.team is not None:
            _tell_unknown("team", args.team, [one.id for one in read_all(directory.teams.page)])
        if args.project is not None:
            names = [one.id for one in read_all(directory.projects.page)]
            _tell_unknown("project", args.project, names)


def _tell_unknown(noun: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=_NEAR_MAX) or known[:_NEAR_MAX]
    there = f"there are {', '.join(near)}" if near else "there is none"
    write_note(f"note: no {noun} {name} yet: nobody gets this rate before; {there}")


def _end(args: argparse.Namespace) -> int:
    at: datetime = args.at or SystemClock().now()
    return _post(args, Wishes(ends=[(args.id, at)]))


def _catalog_name(args: argparse.Namespace, provider: str) -> str:
    configured = read_settings(args).providers.get(provider)
    return provider if configured is None or configured.priced_as is None else configured.priced_as


def _post(args: argparse.Namespace, wishes: Wishes) -> int:
    signed = Signature(who=actor_name(), why=args.why)
    with opened_prices(args) as (store, desk):
        edit = to_edit(wishes, signed, args.effective_from or store.clock.now())
        made = desk.post(edit, signed, args.effective_from)
        standings = stand(store.list_versions(), store.clock.now())
    return write_versions(args, made, standings)


def write_versions(
    args: argparse.Namespace, versions: Sequence[StoredVersion], standings: Standings
) -> int:
    """Show versions that were made or decided about.

    Args:
        args: With ``json``.
        versions: The version, and those made for versions that take effect later.
        standings: How all versions stand now.

    Returns:
        Exit code.
    """
    if args.json:
        write_json([version_to_public(one, standings) for one in versions])
        return 0
    for one in versions:
        start = "" if one.effective_from is None else f", from {instant_text(one.effective_from)}"
        write_fields(
            [
                ("price book", one.version),
                ("status", f"{one.status}{start}"),
                ("made from", one.base or ""),
                *([] if one.carries is None else [("carries", one.carries)]),
                ("by", one.decided_by or one.recorded_by),
                ("why", one.decided_why or one.why),
            ]
        )
    return 0


def version_to_public(stored: StoredVersion, standings: Standings) -> dict[str, Any]:
    """Write a version the way the API shows it.

    Args:
        stored: As it stands.
        standings: How all versions stand now.

    Returns:
        JSON.
    """
    start, standing = stored.effective_from, standings.of(stored)
    return {
        "version": stored.version,
        "status": stored.status,
        "origin": stored.origin,
        "base": stored.base,
        "digest": stored.digest,
        "proposed_at": instant_text(stored.proposed_at),
        "recorded_at": instant_text(stored.recorded_at),
        "effective_from": _instant(start),
        "recorded_by": stored.recorded_by,
        "why": stored.why,
        "decided_by": stored.decided_by,
        "decided_why": stored.decided_why,
        "became": stored.became,
        "carries": stored.carries,
        "in_force_from": _instant(standing.since),
        "in_force_to": _instant(standing.until),
        "is_current": stored.version == standings.current,
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else instant_text(at)


ACTIONS: Final[Mapping[str, Work]] = {"set": _set, "override": _override, "end-override": _end}
