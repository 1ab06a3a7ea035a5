"""Requests that are signed as they are sent, and what happens where they cannot be."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from gateway.aws import AwsKeys, AwsSigner
from gateway.signing import SignedUpstream
from gateway.upstream import UpstreamReply, UpstreamRequest, UpstreamUnsent
from gateway.upstreams import region_of

REQUEST = UpstreamRequest(
    method="POST",
    url="https://bedrock-runtime.us-east-1.amazonaws.com/model/a%3A0/converse",
    headers=[("content-type", "application/json"), ("user-agent", "x"), ("x-amzn-a", "b")],
    body=b"{}",
)


class Exchange:
    """One request and its answer, which is never read."""

    async def __aenter__(self) -> Any:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


class Sent:
    """An upstream that writes down what it is to send."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []

    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamReply]:
        self.requests.append(request)
        return Exchange()


class Marks:
    """A signer that adds a mark, or has nothing to sign with."""

    def __init__(self, *, waits: bool, is_able: bool = True) -> None:
        self.waits = waits
        self.is_able = is_able

    def must_wait(self) -> bool:
        return self.waits

    def sign(self, request: UpstreamRequest) -> UpstreamRequest:
        if not self.is_able:
            raise UpstreamUnsent("no credentials")
        headers = [*request.headers, ("authorization", "mark")]
        return UpstreamRequest(
            method=request.method, url=request.url, headers=headers, body=request.body
        )


async def exchange(upstream: SignedUpstream) -> None:
    """Send a request and let its answer go."""
    async with upstream.send(REQUEST):
        pass


@pytest.mark.parametrize("waits", [False, True])
def test_a_request_is_sent_with_its_signature(waits: bool) -> None:
    """The signer is made once, whether or not it has to wait."""
    sent, opened = Sent(), list[Marks]()

    def open_signer() -> Marks:
        opened.append(Marks(waits=waits))
        return opened[-1]

    upstream = SignedUpstream(sent, open_signer)
    asyncio.run(exchange(upstream))
    asyncio.run(exchange(upstream))

    assert 1 == len(opened)
    assert [("authorization", "mark")] * 2 == [request.headers[-1] for request in sent.requests]


def test_what_cannot_be_signed_is_not_sent() -> None:
    """Surely unsent, so nothing is billed."""
    sent = Sent()
    upstream = SignedUpstream(sent, lambda: Marks(waits=True, is_able=False))

    with pytest.raises(UpstreamUnsent):
        asyncio.run(exchange(upstream))
    assert [] == sent.requests


def test_what_stands_in_between_may_change_is_not_signed() -> None:
    """Host, type and Amazon's own headers are; the rest passes beside the signature."""
    signer = AwsSigner("us-east-1", AwsKeys("AKID", "secret", "token"))
    assert not signer.must_wait()
    headers = dict(signer.sign(REQUEST).headers)

    assert "x" == headers["user-agent"]
    assert "token" == headers["x-amz-security-token"]
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    assert "content-type;host;x-amz-date;x-amz-security-token;x-amzn-a" == names


@pytest.mark.parametrize(
    ("url", "region", "found"),
    [
        ("https://bedrock-runtime.eu-west-2.amazonaws.com", None, "eu-west-2"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", None, "us-gov-west-1"),
        ("http://127.0.0.1:9", "eu-west-2", "eu-west-2"),
        ("http://127.0.0.1:9", None, None),
    ],
)
def test_bedrocks_region_is_a_region_class(url: str, region: str | None, found: str | None) -> None:
    """By the settings, else by the host."""
    assert found == region_of("bedrock", url, region)
