"""The company's office: makes teams, keys and budgets over the control plane, and reads the ledger.

Must never delete anything but the keys it has made.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any, Final
from urllib.parse import urlencode

from gateway.traffic.company import PROJECTS, TEAMS
from gateway.upstream import HttpUpstream, UpstreamFailed, UpstreamRequest

_TIMEOUT_S: Final = 60
_CREATED: Final = 201
_CONFLICT: Final = 409
_CENT: Final = Decimal("0.01")
PRICED_MODEL: Final = ("openai", "gpt-5-mini")
_RISE: Final = Decimal("1.2")


class OfficeFailed(Exception):
    """The control plane said no, or nothing; the text is for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWish:
    """A budget to make, or to give a new limit.

    Attributes:
        id: Its id.
        scope: Which calls count.
        limit: In its unit, such as ``12.50 USD``.
        window: Its window.
        mode: ``hard``, ``soft`` or ``observe``.
    """

    id: str
    scope: Mapping[str, str]
    limit: str
    window: str
    mode: str


class Office:
    """The control plane of one gateway."""

    def __init__(self, url: str, token: str) -> None:
        """Connect to nothing yet.

        Args:
            url: The gateway's address.
            token: Its admin token.
        """
        self._base = f"{url}/api/v1"
        self._headers = [
            ("authorization", f"Bearer {token}"),
            ("content-type", "application/json"),
        ]
        self._http = HttpUpstream(_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def hire(self, run: str) -> Mapping[str, str]:
        """Make every team and project that is not there yet, and a key for each project.

        Args:
            run: Ends the ids of the keys.

        Returns:
            Secrets by project.

        Raises:
            OfficeFailed: The gateway did not take one.
        """
        for team in TEAMS:
            await self._make("/teams", {"id": team, "name": team.capitalize()})
        for project in PROJECTS:
            wish = {"id": project.id, "team": project.team, "tags": dict(project.tags)}
            await self._make("/projects", wish)
        secrets = {}
        for project in PROJECTS:
            key = {"id": f"demo-{project.id}-{run}", "project": project.id}
            status, made = await self._ask("POST", "/keys", key)
            if status != _CREATED:
                raise OfficeFailed(_told("POST /keys", status, made))
            secrets[project.id] = str(made["secret"])
        return secrets

    async def dismiss(self, run: str) -> None:
        """Revoke the keys of a run.

        Args:
            run: As given to ``hire``.

        Raises:
            OfficeFailed: The gateway cannot be asked.
        """
        for project in PROJECTS:
            await self._ask("DELETE", f"/keys/demo-{project.id}-{run}")

    async def budget(self, wishes: Iterable[BudgetWish]) -> None:
        """Make budgets; those that are there get the limit.

        Args:
            wishes: All of them.

        Raises:
            OfficeFailed: The gateway did not take one.
        """
        for wish in wishes:
            body = {
                "id": wish.id,
                "scope": dict(wish.scope),
                "limit": wish.limit,
                "window": wish.window,
                "mode": wish.mode,
                "thresholds": [50, 80, 100],
            }
            status, told = await self._ask("POST", "/budgets", body)
            if status == _CONFLICT:
                limit = {"limit": wish.limit}
                status, told = await self._ask("PATCH", f"/budgets/{wish.id}", limit)
            if status not in {200, _CREATED}:
                raise OfficeFailed(_told(f"budget {wish.id}", status, told))

    async def change_price(self) -> str:
        """Change a price: up by a fifth, or back down where it is up already.

        Returns:
            The version that holds now.

        Raises:
            OfficeFailed: The gateway did not take it.
        """
        provider, model = PRICED_MODEL
        asked = urlencode({"provider": provider, "model": model})
        status, page = await self._ask("GET", f"/prices?{asked}")
        plain = {"meter": "output", "tier": "standard", "over": None, "region": None}
        found = [one for one in page.get("items", []) if plain.items() <= one.items()]
        if status != 200 or not found:
            raise OfficeFailed(_told(f"the price of {provider}/{model}", status, page))
        price = found[0]
        now, is_up = Decimal(price["amount"]), price["source"].startswith("demo: up")
        then = now / _RISE if is_up else now * _RISE
        rate = {
            "provider": provider,
            "model": model,
            "meter": "output",
            "amount": f"{then.normalize():f}",
            "per": int(price["per"]),
            "source": f"demo: {'down' if is_up else 'up'} by a made-up announcement",
        }
        change = {"why": "demo: the provider has changed its price", "rates": [rate]}
        status, made = await self._ask("POST", "/prices", change)
        if status != _CREATED:
            raise OfficeFailed(_told("POST /prices", status, made))
        return str(made["version"])

    async def records(self, since: str, wanted: frozenset[str]) -> Sequence[Mapping[str, Any]]:
        """Read the original records of calls.

        Args:
            since: Instant before the first of them.
            wanted: Their ids.

        Returns:
            Those of them the ledger has.

        Raises:
            OfficeFailed: The ledger cannot be read.
        """
        asked = urlencode({"from": since})
        lines = self._lines(f"/ledger?{asked}")
        records = [json.loads(line) async for line in lines]
        return [one for one in records if one["id"] in wanted and one["corrects"] is None]

    async def _lines(self, path: str) -> AsyncIterator[bytes]:
        headers = [*self._headers, ("accept", "application/x-ndjson")]
        asked = UpstreamRequest(method="GET", url=self._base + path, headers=headers, body=b"")
        rest = b""
        try:
            async with self._http.send(asked) as reply:
                if reply.status != 200:
                    raise OfficeFailed(f"GET {path}: status {reply.status}")
                while (chunk := await reply.read_chunk()) is not None:
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
        except UpstreamFailed as failed:
            raise OfficeFailed(f"GET {path}: {failed}") from failed
        if rest:
            yield rest

    async def _make(self, path: str, body: Mapping[str, Any]) -> None:
        status, told = await self._ask("POST", path, body)
        if status not in {_CREATED, _CONFLICT}:
            raise OfficeFailed(_told(f"POST {path} {body['id']}", status, told))

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        asked = UpstreamRequest(
            method=method,
            url=self._base + path,
            headers=self._headers,
            body=b"" if body is None else json.dumps(body).encode(),
        )
        chunks = []
        try:
            async with self._http.send(asked) as reply:
                status = reply.status
                while (chunk := await reply.read_chunk()) is not None:
                    chunks.append(chunk)
        except UpstreamFailed as failed:
            raise OfficeFailed(f"{self._base} cannot be asked: {failed}") from failed
        text = b"".join(chunks)
        try:
            told = json.loads(text) if text else {}
        except ValueError:
            told = {"detail": text[:200].decode(errors="replace")}
        return status, told


def usd_limit(amount: Decimal) -> str:
    """Write an amount as the limit of a budget.

    Args:
        amount: Any.

    Returns:
        The same in whole cents, rounded up.
    """
    return f"{max(_CENT, amount.quantize(_CENT, ROUND_UP))} USD"


def _told(what: str, status: int, told: Mapping[str, Any]) -> str:
    return f"{what}: status {status}: {told.get('detail', told)}"
