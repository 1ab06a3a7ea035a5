"""The demo provider: whatever provider's words a request is in, it answers as its script says.

Must never be taken for a real one: every answer is marked, and without a script it is canned.
"""

import asyncio
import json
import sys
from hashlib import sha256
from typing import Final

from gateway.client import RsgiClient, RsgiProtocol, RsgiScope
from gateway.demo import BODY_BYTES_MAX, demo_app
from gateway.traffic.answers import Asking, answer
from gateway.traffic.requests import MARK_HEADER, SCRIPT_HEADER, Script

# Where Alertmanager of the stack sends its alerts.
ALERTS_PATH: Final = "/alerts"
_PACE_S: Final = 0.004
# How long a caller that is to hang up has after the first words.
_LINGER_S: Final = 0.2


async def provider_app(scope: RsgiScope, protocol: RsgiProtocol) -> None:
    """Answer one request.

    Args:
        scope: The request.
        protocol: Its body and its answer.
    """
    client = RsgiClient(scope, protocol)
    if client.path == ALERTS_PATH:
        await _write_alerts_down(client)
        return
    text = client.header(SCRIPT_HEADER)
    if text is None:
        await demo_app(scope, protocol)
        return
    body = await client.read_body(BODY_BYTES_MAX)
    try:
        asking = read_asking(client.path, Script.from_text(text), body)
    except ValueError as broken:
        headers = [("content-type", "text/plain"), (MARK_HEADER, "true")]
        client.respond(400, headers, f"the script cannot be read: {broken}\n".encode())
        return
    said = answer(client.path, asking)
    headers = [("content-type", said.content_type), (MARK_HEADER, "true")]
    if not asking.stream or said.status != 200:
        client.respond(said.status, headers, b"".join(said.chunks))
        return
    if said.is_cut:
        # A length that is never reached: however the server ends it, this answer is broken off.
        headers.append(("content-length", str(sum(map(len, said.chunks)) + 1)))
    client.start(200, headers)
    pause_s = _LINGER_S if asking.script.trouble == "leaves" else _PACE_S
    for chunk in said.chunks:
        if not await client.write(chunk):
            return
        await asyncio.sleep(pause_s)
    await client.finish(b"")


async def _write_alerts_down(client: RsgiClient) -> None:
    try:
        lines = alert_lines(await client.read_body(BODY_BYTES_MAX))
    except ValueError as broken:
        client.respond(400, [("content-type", "text/plain")], f"no alerts: {broken}\n".encode())
        return
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    client.respond(200, [("content-type", "text/plain")], b"written down\n")


def alert_lines(body: bytes) -> list[str]:
    """Read a message of Alertmanager.

    Args:
        body: What its webhook sends.

    Returns:
        One line an alert.

    Raises:
        ValueError: Something else.

    Source:
        https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, 2026-11-23.
    """
    told = json.loads(body)
    alerts = told.get("alerts") if isinstance(told, dict) else None
    if alerts is None:
        raise ValueError("a message of Alertmanager has a list of alerts")
    lines = []
    for alert in alerts:
        labels, notes = alert.get("labels", {}), alert.get("annotations", {})
        words = (alert.get("status"), labels.get("alertname"), notes.get("summary"))
        lines.append("alert " + " ".join(str(word) for word in words if word))
    return lines


def read_asking(path: str, script: Script, body: bytes) -> Asking:
    """Read what an answer is made from.

    Args:
        path: Of the request.
        script: What to answer.
        body: Of the request.

    Returns:
        All of it.

    Raises:
        ValueError: The body is not JSON.
    """
    asked = json.loads(body)
    name = path.rpartition("/")[2]
    model, _, verb = name.partition(":")
    is_gemini = bool(verb)
    is_stream = verb.startswith("stream") if is_gemini else bool(asked.get("stream"))
    return Asking(
        script=script,
        model=model if is_gemini else str(asked.get("model")),
        stream=is_stream,
        with_usage=bool((asked.get("stream_options") or {}).get("include_usage")),
        id="demo-" + sha256(script.to_text().encode() + body).hexdigest()[:24],
    )
