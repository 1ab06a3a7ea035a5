"""The first lines on the terminal. Must never show a secret that was not made by this start."""

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the first lines on the terminal say.

    Attributes:
        address: Where the gateway listens.
        admin_token: Shown only when it was made by this start.
        key: Secret of the first key; shown only when it was made by this start.
        model: A model that can be called at once.
        ready_s: How long the start took.
        aborted: Calls of an earlier process that were open and now have a record.
    """

    address: str
    admin_token: str | None
    key: str | None
    model: str
    ready_s: float
    aborted: int


def say(welcome: Welcome, ready_s: float) -> None:
    """Print the first lines: where it is, what opens it, one call that works.

    Args:
        welcome: What to say.
        ready_s: How long the start took.
    """
    lines = [f"taximeter is ready on {welcome.address} (in {ready_s:.1f} s)"]
    if welcome.aborted:
        lines.append(
            f"  {welcome.aborted} calls of an earlier run were open; they have records now"
        )
    if welcome.admin_token is not None:
        lines.append(f"  admin token   {welcome.admin_token}")
    if welcome.key is not None:
        body = json.dumps(
            {"model": welcome.model, "messages": [{"role": "user", "content": "Hello"}]}
        )
        lines += [
            f"  key           {welcome.key}",
            "  Both are shown this once. Try:",
            "",
            f"curl -i {welcome.address}/v1/chat/completions \\",
            f"  -H 'Authorization: Bearer {welcome.key}' \\",
            "  -H 'Content-Type: application/json' \\",
            f"  -d '{body}'",
            "",
        ]
    lines.append(f"  docs {welcome.address}/docs   metrics {welcome.address}/metrics")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
