"""What readers of several APIs share: lenient numbers, kept text, and the bound of a body.

Must never turn a missing number into zero, and never keep more text than counting needs.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Final, TypeVar
from unicodedata import is_normalized, normalize

import msgspec

from gateway.wire.facts import Answer, Asked, BadRequest
from gateway.wire.splice import MEMBERS_MAX, scan_members
from pricing.usage import Quantity

TEXT_KEPT_CHARS_MAX: Final = 256 * 1024
# Names and ids are kept in records; what is longer is cut, so that a record stays small.
NAME_CHARS_MAX: Final = 256
# Far above any count of one call; a larger one is an error, and its cost might not fit 64 bits.
QUANTITY_MAX: Final = 10**10
# What a provider adds to a prompt by itself.
INPUT_TOKENS_SPARE: Final = 512
# No number of a usage object is longer; what is, is not one.
_DIGITS_MAX: Final = 40

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ABSENT: Final = msgspec.Raw(b"")
NULLS: Final = frozenset({b"", b"null"})

Read = TypeVar("Read")

_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Escapes are taken one after another, so that a backslash that is escaped itself does not count.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")


def read_quantity(raw: msgspec.Raw) -> Quantity | None:
    """Read a count, however it is spelt.

    Args:
        raw: The JSON of it: an integer, a float such as ``32.0``, or either in quotes.

    Returns:
        A whole number, or a decimal where it has a fraction; ``None`` for what is missing, no
        number, negative, or beyond ``QUANTITY_MAX``.
    """
    spelt = bytes(raw)
    if spelt.isdigit() and len(spelt) <= 10:
        return int(spelt)
    text = spelt.strip(b'" \t\r\n')
    if not text or len(text) > _DIGITS_MAX:
        return None
    try:
        number = Decimal(text.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        return None
    if not number.is_finite() or not 0 <= number <= QUANTITY_MAX:
        return None
    whole = int(number)
    return whole if whole == number else number


def mend_surrogates(data: bytes) -> bytes:
    """Replace halves of signs, which some models write and which no reader of JSON takes.

    Args:
        data: JSON that could not be read.

    Returns:
        The same with U+FFFD for every escape that is half of a pair.

    Source:
        RFC 8259 section 8.2 allows them and leaves open what a reader makes of them.
    """
    return _ESCAPE.sub(_mend, data) if b"\\u" in data else data


def _mend(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape["half"] else escape[0]


def is_given(raw: msgspec.Raw) -> bool:
    """Tell whether a field is there and not null.

    Args:
        raw: The JSON of it; empty where it is missing.

    Returns:
        Whether there is anything to read.
    """
    return bytes(raw) not in NULLS


def try_read(decode: Callable[[msgspec.Raw], Read], raw: msgspec.Raw) -> Read | None:
    """Read a field that may be odd.

    Args:
        decode: A decoder's method.
        raw: The JSON of the field.

    Returns:
        What it says; ``None`` where it is missing, null or cannot be read.
    """
    if not is_given(raw):
        return None
    try:
        return decode(raw)
    except UNREADABLE:
        return None


def read_name(raw: msgspec.Raw) -> str | None:
    """Read a name or an id that may be odd.

    Args:
        raw: The JSON of it.

    Returns:
        At most ``NAME_CHARS_MAX`` characters; ``None`` where there is no text.
    """
    name = try_read(_decode_text, raw)
    return name[:NAME_CHARS_MAX] if name else None


def keep_text(answer: Answer, text: str | None) -> None:
    """Count a text of an answer, and keep as much of it as there is room for.

    Args:
        answer: What has been seen so far.
        text: Visible output; nothing happens without any.
    """
    if not text:
        return
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0:
        answer.text.append(text[:room])


def keep_unread(answer: Answer, raw: bytes) -> None:
    """Count what is too odd to read as the text it is on the wire.

    Args:
        answer: What has been seen so far.
        raw: Bytes of the answer.
    """
    keep_text(answer, raw.decode("utf-8", "replace"))


def add_flag(answer: Answer, flag: str) -> None:
    """Say once what is odd about an answer.

    Args:
        answer: What has been seen so far.
        flag: In words.
    """
    if flag not in answer.flags:
        answer.flags = (*answer.flags, flag)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Refuse a body that cannot be read, in words that say what to do.

    Args:
        what: What the body should have been, such as ``a chat request``.

    Yields:
        Control to the reading.

    Raises:
        BadRequest: The reading found that the body is something else.
    """
    try:
        yield
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not {what}: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def refuse_ranges(asked: Asked) -> None:
    """Refuse to fetch a part of what is metered as it is fetched.

    Args:
        asked: The request as it came.

    Raises:
        BadRequest: It asks for a range: what the lines between two ranges used nobody would see.
    """
    if any(name == "range" for name, _ in asked.headers):
        raise BadRequest("a part of a file cannot be metered: fetch all of it, without 'Range'")


class SingleFields:
    """Refuses a body that gives a field twice: another reader might take the other one."""

    __slots__ = ("_names", "_notable")

    def __init__(self, *names: str) -> None:
        """Take the fields.

        Args:
            names: Those whose repetition would change what is called or what it costs.
        """
        self._names = frozenset(names)
        self._notable = re.compile(rb'"(?:' + "|".join(sorted(names)).encode() + rb')"')

    def check(self, body: bytes) -> None:
        """Look at a body; closely only where a quick look finds that it could be so.

        Args:
            body: A JSON object.

        Raises:
            BadRequest: One of the fields is given more than once.
        """
        notable = self._notable.findall(body)
        if len(notable) == len(set(notable)) and not _has_escapes(body):
            return
        names = Counter(member.name for member in scan_members(body))
        for name, count in names.items():
            if count > 1 and name in self._names:
                raise BadRequest(f"the request body gives {name!r} more than once; give it once")


def has_repeats(items: msgspec.Raw, name: str) -> bool:
    """Tell whether an object of a list gives a field twice.

    Args:
        items: JSON list of objects.
        name: The field.

    Returns:
        Whether any of them does; ``True`` too where that cannot be told.

    Raises:
        BadRequest: There are more of them, or of the fields of one, than anybody looks at.
    """
    read = try_read(_decode_list, items)
    if read is None:
        return True
    if len(read) > MEMBERS_MAX:
        raise BadRequest(f"the request body has a list of more than {MEMBERS_MAX} objects")
    return any([m.name for m in scan_members(bytes(item))].count(name) > 1 for item in read)


def _has_escapes(body: bytes) -> bool:
    """Tell whether a name may be spelt with escapes."""
    return b"\\" in body and _ESCAPED_ASCII.search(body) is not None


def checked_model(model: str) -> str:
    """Check the length of a model's name, as it is written into records.

    Args:
        model: As the client named it.

    Returns:
        The same.

    Raises:
        BadRequest: It is longer than ``NAME_CHARS_MAX`` characters.
    """
    if len(model) > NAME_CHARS_MAX:
        raise BadRequest(f"the model name is longer than {NAME_CHARS_MAX} characters")
    return model


def bytes_seen(body: bytes) -> int:
    """Count the bytes a tokenizer sees: some compose the text first, and a few signs grow.

    Args:
        body: Of a request.

    Returns:
        A number that the tokens of a byte-level vocabulary never exceed.

    Source:
        https://www.unicode.org/reports/tr15/ for what composing does to the length of a text.
    """
    if body.isascii():
        return len(body)  # an escaped sign is never shorter than what becomes of it
    text = body.decode("utf-8", "replace")
    if is_normalized("NFC", text):
        return len(body)
    return max(len(body), len(normalize("NFC", text).encode("utf-8", "replace")))
