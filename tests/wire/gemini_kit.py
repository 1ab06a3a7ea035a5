"""What tests of Gemini's formats share: requests, heads of answers, and junk.

Must never hold an expectation.
"""

import json
from collections.abc import Mapping

from hypothesis import strategies as st

from gateway.wire.facts import Asked

NAMES = {"version": "v1beta", "model": "gemini-2.5-flash"}


class Head:
    """The head of an answer."""

    def __init__(self, kind: str, status: int = 200) -> None:
        self.status = status
        self.headers = [("content-type", kind)]


EVENTS, ARRAY = Head("text/event-stream"), Head("application/json; charset=UTF-8")


def asked(body: object, query: str = "", names: Mapping[str, str] = NAMES, **headers: str) -> Asked:
    """Make a request; bytes as they are, anything else as JSON."""
    return Asked(
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        query=query,
        names=names,
        headers=[(name.replace("_", "-"), value) for name, value in headers.items()],
    )


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
