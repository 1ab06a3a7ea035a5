"""What lies outside ``/api/v1``: liveness, readiness and the front page.

Must never need a token, and never say more than an outsider may know.
"""

from html import escape
from string import Template
from typing import Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from gateway.admin.parts import Parts

router = APIRouter(tags=["system"])


class HealthOut(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyOut(BaseModel):
    """Whether calls can be served.

    Attributes:
        status: ``unavailable`` when a check fails.
        checks: By store, and the price book.
    """

    status: Literal["ready", "unavailable"]
    checks: dict[str, bool]


# Answered on the event loop on purpose: it is alive exactly when this answers.
@router.get("/healthz")
async def healthz() -> HealthOut:
    """Tell that the process is alive."""
    return HealthOut()


@router.get("/readyz", responses={503: {"model": ReadyOut, "description": "Not ready."}})
def readyz(parts: Parts, response: Response) -> ReadyOut:
    """Tell whether the stores can be reached and the price book is loaded."""
    checks = dict(parts.is_ready())
    is_ready = all(checks.values())
    response.status_code = 200 if is_ready else 503
    return ReadyOut(status="ready" if is_ready else "unavailable", checks=checks)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def front_page(parts: Parts, request: Request) -> HTMLResponse:
    """Show where everything is."""
    base = str(request.base_url).rstrip("/")
    configured = (
        ", ".join(sorted(parts.settings.providers)) or "demo (built in, answers are canned)"
    )
    page = _PAGE.substitute(
        version=escape(parts.version),
        book=escape(parts.book.version.version),
        base=escape(base),
        providers=escape(configured),
    )
    return HTMLResponse(page)


_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>taximeter</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; }
  body { padding: 0 1rem; }
  pre { padding: .75rem 1rem; overflow-x: auto; border: 1px solid; border-radius: .4rem; }
</style>
</head>
<body>
<h1>taximeter</h1>
<p>This gateway meters, prices, budgets and records every LLM call that goes through it.
It is running version $version with price book $book. There is no console yet; the API does
everything.</p>
<h2>First steps</h2>
<p>Point an application at the base URL <code>$base/v1</code> and give it a virtual key where its
SDK takes the API key. Providers: $providers.</p>
<pre>curl $base/v1/models -H "authorization: Bearer $$TAXIMETER_KEY"</pre>
<p>See what was spent, with the admin token:</p>
<pre>curl "$base/api/v1/usage?group_by=team,model" \\
  -H "authorization: Bearer $$TAXIMETER_ADMIN_TOKEN"</pre>
<h2>Where things are</h2>
<ul>
<li><a href="docs">API reference</a> (<a href="openapi.json">OpenAPI document</a>)</li>
<li><a href="metrics">Prometheus metrics</a></li>
<li><a href="readyz">Readiness</a> and <a href="healthz">liveness</a></li>
</ul>
</body>
</html>
""")
