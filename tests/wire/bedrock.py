"""Requests to Bedrock, for tests that care about nothing else."""

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.wire.bedrock_converse import BedrockConverse
from gateway.wire.bedrock_invoke import BedrockInvoke
from gateway.wire.facts import Asked, RequestFacts

CLAUDE_ID: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CONVERSE: Final = BedrockConverse(streams=True)
INVOKE: Final = BedrockInvoke(streams=True)


def asked(body: Any, model: str = CLAUDE_ID, headers: Any = ()) -> Asked:
    """A request as it came."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Asked(body=data, names={"model": model}, headers=[*headers])


def converse(model: str = CLAUDE_ID, **fields: Any) -> RequestFacts:
    """Facts of a Converse request with some fields."""
    usual = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    return CONVERSE.read_facts(asked({**usual, **fields}, model))


def invoke(model: str = CLAUDE_ID, headers: Any = (), **fields: Any) -> RequestFacts:
    """Facts of an InvokeModel request with some fields."""
    return INVOKE.read_facts(asked(fields, model, headers))


def block(part: Any) -> Mapping[str, Any]:
    """Messages with one part."""
    return {"messages": [{"role": "user", "content": [part]}]}
