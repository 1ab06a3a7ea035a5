"""The control plane put together: every router behind one door, every error a problem.

Must never register a route that is not part of the public interface.
"""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer

from gateway.admin import (
    alerts,
    budgets,
    commitments,
    estimates,
    exports,
    ingest,
    keys,
    ledger,
    price_changes,
    prices,
    projects,
    rerates,
    system,
    teams,
    usage,
)
from gateway.admin.auth import API_PREFIX, AdminDoor
from gateway.admin.parts import ControlParts
from gateway.admin.problems import (
    PROBLEM_TYPE,
    FieldProblem,
    Problem,
    RequestRefused,
    add_problem_handlers,
)

_NOUNS = (
    teams,
    projects,
    keys,
    budgets,
    alerts,
    ledger,
    usage,
    price_changes,
    prices,
    estimates,
    rerates,
    commitments,
    ingest,
    exports,
)


def build_control_app(parts: ControlParts) -> FastAPI:
    """Build the control plane.

    Args:
        parts: What it works with.

    Returns:
        An ASGI app for ``/api/v1``, ``/healthz``, ``/readyz``, ``/docs``, ``/openapi.json`` and
        ``/``.
    """
    app = FastAPI(
        title="taximeter",
        version=parts.version,
        summary="Teams, projects, keys, budgets, prices and the ledger of an LLM gateway.",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.parts = parts
    # The door compares the token before any route runs; this only tells the OpenAPI document.
    bearer = HTTPBearer(auto_error=False, scheme_name="admin_token")
    api = APIRouter(
        prefix=API_PREFIX, dependencies=[Depends(bearer), Depends(refuse_unknown_query)]
    )
    for noun in _NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(system.router)
    add_problem_handlers(app)
    app.add_middleware(AdminDoor, token=parts.admin_token, find_caller=parts.find_caller)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def refuse_unknown_query(request: Request) -> None:
    """Refuse query parameters that no route knows: a misspelt filter would answer with everything.

    Args:
        request: To a route of ``/api/v1``.

    Raises:
        RequestRefused: Naming them, and what there is.
    """
    if not request.query_params:
        return
    known = _query_names(request)
    unknown = sorted(set(request.query_params) - known)
    given = [name for name, _ in request.query_params.multi_items()]
    repeated = sorted({name for name in given if given.count(name) > 1})
    if repeated:
        errors = [
            FieldProblem(field=f"query.{name[:64]}", reason="is given more than once")
            for name in repeated[:10]
        ]
        raise RequestRefused(422, "invalid_request", f"{errors[0].field} is given twice", errors)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        errors = [
            FieldProblem(field=f"query.{name[:64]}", reason=f"is not known; there are: {names}")
            for name in unknown[:10]
        ]
        detail = f"{errors[0].field} {errors[0].reason}"
        raise RequestRefused(422, "invalid_request", detail, errors)


def _query_names(request: Request) -> set[str]:
    paths = request.app.openapi()["paths"]
    path = request.url.path
    head, _, last = path.rpartition("/")
    below = f"{head.rpartition('/')[0]}/{{id}}/{last}"
    described = paths.get(path) or paths.get(f"{head}/{{id}}") or paths[below]
    parameters = described[request.method.lower()].get("parameters", ())
    return {one["name"] for one in parameters if one["in"] == "query"}


def _document(app: FastAPI) -> dict[str, Any]:
    """Write the OpenAPI document, with problems instead of FastAPI's own error shape."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {
                    "description": "Any error, as RFC 9457 says it.",
                    "content": content,
                }
        app.openapi_schema = document
    return app.openapi_schema
