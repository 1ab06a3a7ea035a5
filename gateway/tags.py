"""Tags of one call: what its key inherits, overlaid by the request header, held against policy.

Must never drop a tag silently: what cannot be read is a violation, or cost lands on nobody.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import unquote

TAGS_MAX: Final = 32
TAG_NAME_CHARS_MAX: Final = 64
TAG_VALUE_CHARS_MAX: Final = 256
TAG_NAME: Final = re.compile(rf"[a-z0-9._-]{{1,{TAG_NAME_CHARS_MAX}}}")

_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class TagRule(Protocol):
    """What the policy says of one tag."""

    @property
    def required(self) -> bool:
        """Whether every call must carry it."""
        ...

    @property
    def values(self) -> Collection[str] | None:
        """Values it may have; ``None`` for any."""
        ...

    @property
    def on_violation(self) -> str:
        """``reject`` or ``warn``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TagViolation:
    """One way the tags of a call break the policy or cannot be read.

    Attributes:
        tag: Name of the tag; empty when the header as a whole is at fault.
        reason: What is wrong and what would be right, in one sentence.
        is_refusal: Whether the call must be refused; otherwise it is only flagged.
    """

    tag: str
    reason: str
    is_refusal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsDecision:
    """The tags in force for a call and what is wrong with them.

    Attributes:
        tags: Sorted by name.
        violations: Empty when all is well.
    """

    tags: Mapping[str, str]
    violations: tuple[TagViolation, ...]

    @property
    def is_refused(self) -> bool:
        """Whether at least one violation refuses the call."""
        return any(violation.is_refusal for violation in self.violations)


def merge_tags(
    inherited: Mapping[str, str], header_text: str | None, policy: Mapping[str, TagRule]
) -> TagsDecision:
    """Decide the tags of one call.

    Args:
        inherited: Tags of the caller, sorted by name: team, project and key already merged.
        header_text: Value of ``x-taximeter-tags``; ``None`` when absent.
        policy: Rule by tag name.

    Returns:
        The tags, where the request header wins over what the key inherits, and every violation.
        A header that cannot be read always refuses: guessing would book cost on the wrong tag.
    """
    tags = inherited
    violations: tuple[TagViolation, ...] = ()
    if header_text is not None:
        named, violations = parse_tags(header_text)
        tags = dict(sorted({**inherited, **dict(named)}.items())) if named else inherited
        if len(tags) > TAGS_MAX:
            violations = (*violations, _refusal("", f"{len(tags)} tags; at most {TAGS_MAX} fit"))
    if policy:
        violations = (*violations, *_broken_rules(tags, policy))
    return TagsDecision(tags=tags, violations=violations)


# Applications send the same few headers over and over; the bound keeps a caller that puts a
# request id into a tag from filling memory.
@lru_cache(maxsize=256)
def parse_tags(text: str) -> tuple[tuple[tuple[str, str], ...], tuple[TagViolation, ...]]:
    """Read ``k=v,k2=v2``.

    Args:
        text: ASCII; values may be percent-encoded UTF-8. Blanks around names and values and empty
            pieces between commas are ignored; of a repeated name the last counts.

    Returns:
        Pairs in the order given, and one violation for every piece that cannot be read.
    """
    pieces = [piece for piece in text.split(",", 2 * TAGS_MAX) if piece.strip()]
    if len(pieces) > TAGS_MAX:
        return (), (_refusal("", f"x-taximeter-tags names more than {TAGS_MAX} tags"),)
    pairs: list[tuple[str, str]] = []
    violations: list[TagViolation] = []
    for piece in pieces:
        name, equals, raw = piece.partition("=")
        name = name.strip()
        problem = name_problem(name) if equals else "write tags as name=value, split by commas"
        value = ""
        if problem is None:
            value, problem = _read_value(raw.strip())
        if problem is None:
            pairs.append((name, value))
        else:
            violations.append(_refusal(name[:TAG_NAME_CHARS_MAX], problem))
    return tuple(pairs), tuple(violations)


def name_problem(name: str) -> str | None:
    """Say what is wrong with a tag's name.

    Args:
        name: Any text.

    Returns:
        One sentence, or ``None`` when the name is fine.
    """
    if TAG_NAME.fullmatch(name):
        return None
    return f"a tag name has 1 to {TAG_NAME_CHARS_MAX} characters of a-z 0-9 . _ -"


def value_problem(value: str) -> str | None:
    """Say what is wrong with a tag's value.

    Args:
        value: Decoded text.

    Returns:
        One sentence, or ``None`` when the value is fine.
    """
    if not value:
        return "a tag value cannot be empty; leave the tag out"
    if len(value) > TAG_VALUE_CHARS_MAX:
        return f"a tag value has at most {TAG_VALUE_CHARS_MAX} characters, not {len(value)}"
    if not value.isprintable():
        return "a tag value has printable characters only"
    return None


def _read_value(raw: str) -> tuple[str, str | None]:
    # Three bytes of percent-encoding per byte, four bytes per character at most.
    if len(raw) > 12 * TAG_VALUE_CHARS_MAX:
        return "", value_problem(raw)
    if not raw.isascii():
        return "", "percent-encode characters beyond ASCII as UTF-8"
    if _PERCENT.search(raw):
        return "", "write a percent sign in a tag value as %25"
    try:
        value = unquote(raw, errors="strict") if "%" in raw else raw
    except UnicodeDecodeError:
        return "", "a percent-encoded tag value must be UTF-8"
    return value, value_problem(value)


def _broken_rules(tags: Mapping[str, str], policy: Mapping[str, TagRule]) -> list[TagViolation]:
    broken = []
    for name, rule in policy.items():
        value = tags.get(name)
        if value is None:
            if rule.required:
                broken.append(_by_rule(name, rule, f"the tag {name} is required"))
        elif rule.values is not None and value not in rule.values:
            allowed = ", ".join(sorted(rule.values))
            broken.append(_by_rule(name, rule, f"{name} must be one of {allowed}, not {value!r}"))
    return broken


def _by_rule(name: str, rule: TagRule, reason: str) -> TagViolation:
    return TagViolation(tag=name, reason=reason, is_refusal=rule.on_violation == "reject")


def _refusal(name: str, reason: str) -> TagViolation:
    return TagViolation(tag=name, reason=reason, is_refusal=True)
