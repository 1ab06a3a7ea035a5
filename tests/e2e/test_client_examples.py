"""Every Python example of the page about clients, run as it stands against a real gateway.

Must never change more of an example than where the gateway listens.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.openai_answers import answer_like_openai
from tests.server import KEY, Gateway, plain_config
from tests.upstream import Received, Reply, Script, ScriptedUpstream

PAGE: Final = Path(__file__).parents[2] / "docs" / "clients.md"
EXAMPLES: Final = re.findall(r"^```python client\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
SHOWN: Final = "http://127.0.0.1:8080"
APIS: Final = {
    "/v1/messages": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Fine."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 2},
    },
    ":generateContent": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Fine."}]}}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 2,
            "totalTokenCount": 11,
        },
        "modelVersion": "gemini-2.5-flash",
    },
    "/converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": "Fine."}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 9, "outputTokens": 2, "totalTokens": 11},
        "metrics": {"latencyMs": 5},
    },
}


def answer(received: Received) -> Script:
    """Play whoever the address belongs to."""
    for ending, body in APIS.items():
        if received.target.endswith(ending):
            return Reply(body=json.dumps(body).encode())
    return answer_like_openai(received)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in front of one upstream that plays every provider of the page."""
    with ScriptedUpstream(answer) as upstream:
        root = upstream.base_url.removesuffix("/v1")
        providers: dict[str, Any] = {
            "openai": {"kind": "openai", "base_url": f"{root}/v1", "api_key": "x"},
            "anthropic": {"kind": "anthropic", "base_url": root, "api_key": "x"},
            "gemini": {"kind": "gemini", "base_url": root, "api_key": "x"},
            "vertex": {"kind": "vertex", "base_url": root, "api_key": "x"},
            "bedrock": {
                "kind": "bedrock",
                "base_url": root,
                "api_key": "x",
                "region": "us-east-1",
            },
        }
        config = plain_config(root, providers=providers)
        with Gateway(tmp_path_factory.mktemp("clients"), config) as running:
            yield running


def test_the_page_has_examples() -> None:
    """The test below has something to run."""
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_makes_one_metered_call(gateway: Gateway, example: str) -> None:
    """Copied, with a key and an address, it works and is priced."""
    assert SHOWN in example
    before = len(gateway.ledger())

    program = f"KEY = {KEY!r}\n{example.replace(SHOWN, gateway.url)}"
    environ = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environ
    )

    assert ran.returncode == 0, ran.stderr

    made = [one for one in gateway.ledger()[before:] if one["key"] is not None]
    assert [("ok", "reported", "final")] == [
        (one["outcome"], one["basis"], one["cost_status"]) for one in made
    ]
