"""No prompt, answer or secret in any output or file of the gateway.

Must never look at the configuration file: there, secrets stand as names of variables.
"""

import json
from pathlib import Path

import pytest

from tests.openai_answers import STREAM, chunk, completion, spoken, usage_chunk
from tests.server import (
    ADMIN_TOKEN,
    BROKEN_OFF,
    KEY,
    PROVIDER_KEY,
    Gateway,
    each_file,
    plain_config,
)
from tests.upstream import CutIn, Garbage, Reply, Script, ScriptedUpstream, Sse

PROMPT = "PROMPT-7f3e-marker"
ANSWER = "ANSWER-91bc-marker"
HEADER = "HEADER-55aa-marker"
STRANGER = "sk-tm-STRANGER-4d2e-marker-000000000000000000000"
SECRETS = (PROMPT, ANSWER, HEADER, STRANGER, KEY, PROVIDER_KEY, ADMIN_TOKEN)

ERROR = json.dumps({"error": {"message": f"cannot answer {PROMPT}: {ANSWER}"}}).encode()
SCRIPTS: tuple[Script, ...] = (
    Reply(body=completion(ANSWER)),
    Reply(body=completion(ANSWER, usage=None)),
    Reply(body=ANSWER.encode()),
    Reply(status=500, body=ERROR),
    Reply(status=400, body=ERROR),
    Reply(body=completion(ANSWER), write_bytes=100, ending=CutIn(piece=4)),
    Garbage(data=ANSWER.encode() + b"\r\n\r\n"),
    Sse(events=spoken(ANSWER, ANSWER), usage=(usage_chunk(),)),
    Sse(events=spoken(ANSWER, ANSWER)),
    Sse(events=(ANSWER.encode(), b"{" + ANSWER.encode())),
    Sse(events=spoken(ANSWER, ANSWER), ending=CutIn(piece=2)),
    Sse(events=(*STREAM.events, chunk(None, error={"message": ANSWER}))),
)


@pytest.mark.parametrize("fsync", ["normal", "full"])
def test_prompts_answers_and_secrets_stay_out_of_logs_and_files(
    tmp_path: Path, upstream: ScriptedUpstream, fsync: str
) -> None:
    """After calls of every kind, a kill and a restart, no marker is found anywhere."""
    config = plain_config(upstream.base_url, storage={"fsync": fsync})
    with Gateway(tmp_path, config) as gateway:
        for script in SCRIPTS:
            with upstream.plays(script):
                talk(gateway, is_stream=isinstance(script, Sse))
        refuse(gateway)
        gateway.settle()
        gateway.kill()
        gateway.restart()
        talk(gateway, is_stream=False)
        gateway.settle()
        for command in ("check-config",):
            shown = gateway.run(command)
            assert_clean(f"taximeter {command}", (shown.stdout + shown.stderr).encode())
        assert 0 == gateway.stop(), gateway.said()

    files = [path for path in each_file(tmp_path) if path.name != "gateway.yaml"]
    assert {"stdout.log", "stderr.log"} < {path.name for path in files}
    assert any("journal" in str(path) for path in files)
    for path in files:
        assert_clean(str(path.relative_to(tmp_path)), path.read_bytes())


def assert_clean(where: str, content: bytes) -> None:
    """Fail when a marker stands in the content."""
    found = [marker for marker in SECRETS if marker.encode() in content]
    assert [] == found, where


def talk(gateway: Gateway, *, is_stream: bool) -> None:
    """Make one call with markers wherever a client can put words."""
    body = {
        "model": "gpt-5",
        "messages": [
            {"role": "system", "content": f"You are {PROMPT}"},
            {"role": "user", "content": f"{PROMPT} says hello"},
        ],
        "tools": [{"type": "function", "function": {"name": PROMPT}}],
        "user": PROMPT,
        "stream": is_stream,
    }
    headers = {"x-anything": HEADER, "cookie": f"session={HEADER}"}
    try:
        gateway.call("/v1/chat/completions", body, headers=headers)
    except BROKEN_OFF:
        assert is_stream


def refuse(gateway: Gateway) -> None:
    """Make calls that are refused at different stages."""
    call = gateway.call
    path = "/v1/chat/completions"
    assert 401 == call(path, PROMPT.encode(), key=STRANGER).status_code
    assert 400 == call(path, b'{"model": "gpt-5", ' + PROMPT.encode()).status_code
    assert 400 == call(path, b'{"model": 7, "messages": "' + PROMPT.encode() + b'"}').status_code
    assert 404 == call(f"/v1/{PROMPT}", b"{}").status_code
    assert 401 == gateway.http.post(f"{path}?key={STRANGER}", content=b"{}").status_code
    assert gateway.admin.get("/ledger", headers={"authorization": STRANGER}).status_code in (
        401,
        403,
    )
