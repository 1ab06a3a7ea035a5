"""Single calls of providers whose chats are read elsewhere, such as Perplexity's search.

Must never hold a call that needs a reader of its own.
"""

from typing import Final

import msgspec

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.plain_format import FreeCalls, PlainFormat
from gateway.wire.reading import ABSENT, read_name, refusing, try_read
from pricing.meters import Meter
from pricing.usage import Basis, Usage

# What the price book calls it; a search names no model.
_SEARCH: Final = "search"
_ONE: Final = Usage(counts={Meter.REQUEST: 1}, basis=Basis.REPORTED)
_NO_METERS: Final[frozenset[Meter]] = frozenset()


class _Search(msgspec.Struct):
    query: str | list[str]


class _Found(msgspec.Struct):
    id: msgspec.Raw = ABSENT
    results: msgspec.Raw = ABSENT


_decode_search: Final = msgspec.json.Decoder(_Search).decode
_decode_found: Final = msgspec.json.Decoder(_Found).decode


class PerplexitySearch(PlainFormat, OpenAIDialect):
    """The wire format of ``POST /search``, which is charged by the request."""

    api = "perplexity.search"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: no tokens. The price of the request stands in the price book.

        Raises:
            BadRequest: Not JSON, or no query.

        Source:
            https://docs.perplexity.ai/api-reference/search-post, checked 2026-11-23.
        """
        with refusing("a search"):
            _decode_search(asked.body)
        return RequestFacts(
            model=_SEARCH,
            stream=False,
            wants_usage=True,
            tier=None,
            input_tokens_max=0,
            output_tokens_max=0,
            choices=1,
            extra_output_max=0,
            meters=_NO_METERS,
            fees={},
        )

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            One request, where something was searched.
        """
        found = try_read(_decode_found, msgspec.Raw(body))
        if found is None or head.status >= 300:
            return Answer()
        return Answer(usage=_ONE, is_readable=True, request_id=read_name(found.id))


class ProviderFree(FreeCalls, OpenAIDialect):
    """The wire format of single calls that cost nothing."""

    api = "free"


# Source: https://api-docs.deepseek.com/api/get-user-balance, checked 2026-11-23.
ENDPOINTS: Final = (
    Endpoint(kinds=frozenset({"perplexity"}), path="/search", format=PerplexitySearch()),
    Endpoint(
        kinds=frozenset({"deepseek"}),
        path="/user/balance",
        format=ProviderFree(),
        methods=frozenset({"GET"}),
    ),
)
