"""What every request to Google's APIs is read by: both spellings of a name, and what is refused.

Must never let two readers of one request read two different values.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import unquote_plus

import msgspec

from gateway.wire.facts import Asked, BadRequest
from gateway.wire.openai_answer import NAME_CHARS_MAX, UNREADABLE
from gateway.wire.splice import scan_members

# SentencePiece falls back to bytes, so tokens never outnumber the UTF-8 bytes of a text, and the
# JSON around each part is longer than what frames it. The constant covers what Google adds.
INPUT_TOKENS_SPARE: Final = 512

_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")
# They leave parts of an answer out, such as its usage.
_MASKS: Final = frozenset({"fields", "$fields"})
_ENCODINGS: Final = frozenset({"alt", "$alt"})
_READABLE: Final = frozenset({"json", "sse"})
_UPPER: Final = re.compile(r"(?<!^)(?=[A-Z])")

Read = TypeVar("Read")


def refuse_masks(asked: Asked) -> None:
    """Refuse a request whose answer would not tell all that it costs.

    Args:
        asked: The request as it came.

    Raises:
        BadRequest: It asks for some fields of the answer only, or for another encoding than JSON.

    Source:
        https://cloud.google.com/apis/docs/system-parameters, checked 2026-11-23.
    """
    if any(name == "x-goog-fieldmask" for name, _ in asked.headers):
        raise BadRequest("X-Goog-FieldMask can leave the usage out of the answer: do not send it")
    if not asked.query:
        return
    for part in asked.query.split("&"):
        name, _, value = part.partition("=")
        name = unquote_plus(name)
        if name in _MASKS:
            raise BadRequest(f"{name!r} can leave the usage out of the answer: do not send it")
        encoding = unquote_plus(value).partition(";")[0]
        if name in _ENCODINGS and encoding not in _READABLE:
            raise BadRequest(f"answers in {encoding!r} cannot be metered: ask for json or sse")


def decode_body(body: bytes, decode: "msgspec.json.Decoder[Read]", what: str) -> Read:
    """Decode a request body.

    Args:
        body: As it came.
        decode: Knows its fields.
        what: What it should be, for the refusal.

    Returns:
        The fields.

    Raises:
        BadRequest: Not JSON, or not of that shape.
    """
    try:
        return decode.decode(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not {what}: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def has_escapes(body: bytes) -> bool:
    """Tell whether a name may be spelt with escapes.

    Args:
        body: JSON.

    Returns:
        Whether an ASCII character is escaped by its number.
    """
    return b"\\" in body and _ESCAPED_ASCII.search(body) is not None


def plain_spelling(body: bytes) -> bytes:
    """Write JSON anew without escapes a name could hide behind.

    Args:
        body: Readable JSON.

    Returns:
        The same, each character as itself.
    """
    try:
        return msgspec.json.encode(msgspec.json.decode(body))
    except (*UNREADABLE, ValueError):
        return body


def snake_of(name: str) -> str:
    """Spell a name of proto3 JSON as its proto spells it.

    Args:
        name: Such as ``generationConfig``.

    Returns:
        Such as ``generation_config``.
    """
    return _UPPER.sub("_", name).lower()


def refuse_repeats(body: bytes, names: Iterable[str]) -> None:
    """Refuse a field of an object that is given twice, in one spelling or in both.

    Args:
        body: A JSON object.
        names: Fields that must be given once, in camel case.

    Raises:
        BadRequest: One is given twice.

    Source:
        https://protobuf.dev/programming-guides/json: parsers take both spellings. Checked
        2026-11-23.
    """
    single = {snake_of(name): name for name in names}
    seen = Counter(snake_of(member.name) for member in scan_members(body))
    for spelling, count in seen.items():
        if count > 1 and spelling in single:
            raise BadRequest(
                f"the request body gives {single[spelling]!r} more than once (both spellings "
                "count): give it once"
            )


def model_of(name: str) -> str:
    """Take the model out of a resource name.

    Args:
        name: ``models/x``, ``publishers/google/models/x`` with or without a project, or ``x``.

    Returns:
        The model; the name as it is where it names something else, such as a tuned model.

    Raises:
        BadRequest: It is too long to be kept.
    """
    if len(name) > NAME_CHARS_MAX:
        raise BadRequest(f"the model name is longer than {NAME_CHARS_MAX} characters")
    before, found, model = name.rpartition("models/")
    return model if found and (not before or before.endswith("/")) else name


def refuse_other_model(named: str | None, model: str) -> None:
    """Refuse a body that names another model than the address.

    Args:
        named: In the body; ``None`` where it names none.
        model: In the address.

    Raises:
        BadRequest: They differ.
    """
    if named and model_of(named) != model:
        raise BadRequest(f"the address names model {model!r} and the body {named!r}: name one")


def region_of_location(names: Mapping[str, str]) -> str | None:
    """Find the region class of an address of Vertex AI.

    Args:
        names: What the address names.

    Returns:
        ``regional`` for every location but the global one; ``None`` where there is no location.

    Source:
        https://cloud.google.com/vertex-ai/generative-ai/pricing: endpoints that are not global
        carry an uplift on some models. Checked 2026-11-23.
    """
    location = names.get("location")
    return None if location in (None, "global") else "regional"
