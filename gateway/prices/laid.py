"""What was asked, laid over a version: the contents of the version it makes, checked as a whole.

Must never record anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.prices.asked import Approval, PriceEdit, PriceRefused
from gateway.prices.rows import StoredVersion
from gateway.prices.store import PriceChange
from pricing.agreements import Override
from pricing.book import AGREEMENTS, build_book, describe_version, object_name
from pricing.changes import (
    ChangeRefused,
    with_model,
    with_override,
    with_override_ended,
    with_rate,
)
from pricing.manifest import (
    BookBroken,
    BookVersion,
    Manifest,
    ModelEntry,
    agreements_digest,
    digest_of,
)
from pricing.rates import Rate
from pricing.rows import agreements_text, parse_agreements, parse_prices, prices_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version that was made and checked, and is not recorded.

    Attributes:
        base: What it was laid over.
        start: First instant it holds.
        manifest: What it consists of.
        objects: Contents the database may not have yet.
    """

    base: BookVersion
    start: datetime
    manifest: Manifest
    objects: Mapping[str, tuple[str, str]]

    @property
    def is_idle(self) -> bool:
        """Whether it says what its base says."""
        return self.manifest == self.base.manifest


def lay(
    change: PriceChange, base: BookVersion, start: datetime, asked: PriceEdit | Approval
) -> Draft:
    """Lay over a version what was asked.

    Args:
        change: For the contents of versions.
        base: The version.
        start: First instant the result holds.
        asked: What was asked. An override that is to end and is not there is passed over.

    Returns:
        The result, checked.

    Raises:
        PriceRefused: It is not possible over this version, or makes a broken one.
    """
    match asked:
        case Approval():
            candidate = find_stored(change, asked.candidate)
            origin = manifest_of(change, candidate.base)
            manifest = merge_candidate(candidate, origin, base, replaces=asked.replaces)
            draft = Draft(base=base, start=start, manifest=manifest, objects={})
            check(change, draft, manifest.providers)
            return draft
        case PriceEdit():
            return _lay_edit(change, base, start, asked)


def find_stored(change: PriceChange, name: str) -> StoredVersion:
    """Find a version by its name.

    Args:
        change: Where versions are listed.
        name: Its name.

    Returns:
        The version as it stands.

    Raises:
        PriceRefused: There is none.
    """
    for one in change.list_versions():
        if one.version == name:
            return one
    raise PriceRefused(
        f"there is no price book version {name}; see `taximeter prices versions`", kind="unknown"
    )


def manifest_of(change: PriceChange, name: str | None) -> Manifest:
    """Tell what a version consists of.

    Args:
        change: Where versions are listed.
        name: Its name; ``None`` for nothing at all.

    Returns:
        Its manifest.
    """
    return Manifest(providers={}) if name is None else find_stored(change, name).manifest


def merge_candidate(
    candidate: StoredVersion, origin: Manifest, base: BookVersion, *, replaces: bool
) -> Manifest:
    """Lay what a candidate changed over a version, provider by provider.

    Args:
        candidate: The candidate.
        origin: What it was made from.
        base: The version.
        replaces: Whether it may undo what differs there from what it was made from.

    Returns:
        Both together, with the agreements of the version.

    Raises:
        PriceRefused: It may not, and would.
    """
    given, before, now = candidate.manifest.providers, origin.providers, base.manifest.providers
    names = sorted(given.keys() | before.keys())
    changed = [name for name in names if given.get(name) != before.get(name)]
    lost = [name for name in changed if now.get(name) not in (before.get(name), given.get(name))]
    if lost and not replaces:
        raise PriceRefused(
            f"the prices of {', '.join(lost)} were changed since {candidate.version} was made; "
            "import again, or approve it with --replace to undo those changes",
            kind="conflict",
        )
    merged = {**now, **{name: given[name] for name in changed if name in given}}
    gone = {name for name in changed if name not in given}
    kept = {name: digest for name, digest in merged.items() if name not in gone}
    return Manifest(providers=kept, agreements=base.manifest.agreements)


def read_prices(
    change: PriceChange, manifest: Manifest, provider: str
) -> tuple[tuple[ModelEntry, ...], tuple[Rate, ...]]:
    """Read the prices of a provider in a version.

    Args:
        change: For the contents of versions.
        manifest: The version's.
        provider: Catalog provider.

    Returns:
        Its models and rates; none where the version does not have it.
    """
    digest = manifest.providers.get(provider)
    if digest is None:
        return (), ()
    file = object_name(provider, digest)
    content = parse_prices(file, change.open_object(provider, digest))
    return content.models, content.rates


def read_overrides(change: PriceChange, manifest: Manifest) -> tuple[Override, ...]:
    """Read the negotiated rates of a version.

    Args:
        change: For the contents of versions.
        manifest: The version's.

    Returns:
        The overrides.
    """
    digest = manifest.agreements
    if digest is None:
        return ()
    file = object_name(AGREEMENTS, digest)
    return parse_agreements(file, change.open_object(AGREEMENTS, digest))


def check(change: PriceChange, draft: Draft, providers: Iterable[str]) -> None:
    """Build the book, which finds every problem.

    Args:
        change: For the contents of versions.
        draft: A version not recorded yet.
        providers: Whose prices can be broken in it.

    Raises:
        PriceRefused: They are, or contradict the agreements.
    """

    def open_object(name: str, digest: str) -> str:
        known = draft.objects.get(digest)
        return change.open_object(name, digest) if known is None else known[1]

    version = describe_version(draft.base.version, draft.manifest, recorded_at=change.at)
    try:
        build_book(version, open_object, providers)
    except BookBroken as broken:
        raise PriceRefused("; ".join(broken.problems[:10])) from broken


def _lay_edit(change: PriceChange, base: BookVersion, start: datetime, edit: PriceEdit) -> Draft:
    providers, objects = dict(base.manifest.providers), {}
    touched = {rate.provider for rate in edit.rates} | {m.provider for m in edit.models}
    try:
        for provider in sorted(touched):
            digest, text = _edit_prices(change, base.manifest, provider, edit)
            providers[provider], objects[digest] = digest, (provider, text)
        agreements = base.manifest.agreements
        if edit.overrides or edit.ends:
            agreements, text = _edit_agreements(change, base.manifest, edit)
            if agreements is not None:
                objects[agreements] = (AGREEMENTS, text)
    except ChangeRefused as refused:
        raise PriceRefused(str(refused), kind="conflict") from refused
    manifest = Manifest(providers=providers, agreements=agreements)
    draft = Draft(base=base, start=start, manifest=manifest, objects=objects)
    check(change, draft, _to_check(touched, edit.overrides, providers))
    return draft


def _edit_prices(
    change: PriceChange, manifest: Manifest, provider: str, edit: PriceEdit
) -> tuple[str, str]:
    models, rates = read_prices(change, manifest, provider)
    named = [(rate.price_id, rate.valid_from) for rate in edit.rates]
    if len(set(named)) < len(named):
        raise PriceRefused(
            "two of these rates are the same price from the same instant", field="rates"
        )
    for entry in edit.models:
        models = with_model(models, entry) if entry.provider == provider else models
    # By time, not as they were written down: an edit that is laid again has lost that order.
    for rate in sorted(edit.rates, key=lambda one: one.valid_from):
        if rate.provider == provider:
            if not any(entry.model == rate.model for entry in models):
                raise PriceRefused(_unknown_model(models, rate), field="model")
            rates = with_rate(rates, rate)
    try:
        return digest_of(models, rates), prices_text(models, rates)
    except ValueError as mixed:
        raise PriceRefused(f"{provider}: {mixed}", field="currency") from mixed


def _unknown_model(models: Sequence[ModelEntry], rate: Rate) -> str:
    for entry in models:
        if rate.model in entry.aliases:
            return f"{rate.model!r} is another name of {entry.model!r}; write that"
    return f"{rate.provider} has no model {rate.model!r}; say new_model to add it"


def _edit_agreements(
    change: PriceChange, manifest: Manifest, edit: PriceEdit
) -> tuple[str | None, str]:
    overrides = read_overrides(change, manifest)
    for name, end in edit.ends:
        there = next((one for one in overrides if one.id == name), None)
        if there is not None and (there.valid_to is None or there.valid_to > end):
            overrides = with_override_ended(overrides, name, end)
    for override in edit.overrides:
        overrides = with_override(overrides, override)
    found = agreements_digest(overrides) if overrides else None
    return found, agreements_text(overrides)


def _to_check(
    touched: Iterable[str], overrides: Iterable[Override], providers: Mapping[str, str]
) -> Iterable[str]:
    """Whose prices the change can be at odds with: everybody's, for an override of all."""
    wanted = set(touched)
    for override in overrides:
        if override.provider is None:
            return providers
        if override.provider not in providers:
            raise PriceRefused(
                f"the price book has no provider {override.provider!r}", field="provider"
            )
        wanted.add(override.provider)
    return wanted
