"""Every error of the control plane as ``application/problem+json``, in one place.

Must never echo what a client sent beyond field names, nor show what went wrong inside.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gateway.directory_model import Conflict, DirectoryProblem, Invalid, ManagedByConfig, NotFound
from gateway.ending import CountingFailed
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.filters import QueryRefused

log = logging.getLogger("taximeter.admin")

PROBLEM_TYPE: Final = "application/problem+json"
_CODES: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "request_too_large",
    422: "invalid_request",
    500: "internal_error",
    503: "store_unavailable",
}

_NOT_FOUND: Final = HTTPStatus.NOT_FOUND.phrase
# What an SDK shows whose base URL is wrong: the first segment is neither v1 nor a provider.
_ELSEWHERE: Final = (
    "no such address: models are called below /v1 or below the id of a configured provider, such "
    "as /openai or /anthropic; GET / lists those there are. A base URL with a slash at its end, or "
    "without /v1, leads here"
)


class FieldProblem(BaseModel):
    """One thing wrong with a request.

    Attributes:
        field: Where, such as ``body.scope.team`` or ``query.limit``.
        reason: What is wrong.
    """

    field: str
    reason: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 says it.

    Attributes:
        type: A URI naming the kind of problem.
        title: The kind of problem in words.
        status: HTTP status.
        code: Stable machine code.
        detail: What happened this time and what would help.
        errors: Every field at fault; empty when the request as a whole is.
    """

    type: str = Field(examples=["urn:taximeter:problem:not_found"])
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem] = []


class RequestRefused(Exception):
    """A request that cannot be answered as asked.

    Attributes:
        status: HTTP status.
        code: Stable machine code.
        detail: What is wrong and what would help.
        errors: Fields at fault.
    """

    def __init__(
        self, status: int, code: str, detail: str, errors: Sequence[FieldProblem] = ()
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        super().__init__(detail)


def to_problem(
    status: int, detail: str, code: str | None = None, errors: Iterable[FieldProblem] = ()
) -> dict[str, Any]:
    """Put a problem together.

    Args:
        status: HTTP status.
        detail: What happened and what would help.
        code: Stable machine code; that of the status unless given.
        errors: Fields at fault.

    Returns:
        The body of the answer.
    """
    code = code or _CODES.get(status, HTTPStatus(status).name.lower())
    return Problem(
        type=f"urn:taximeter:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        errors=list(errors),
    ).model_dump()


def problem_response(
    problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a problem.

    Args:
        problem: From ``to_problem``.
        headers: More response headers.

    Returns:
        The answer.
    """
    return JSONResponse(
        problem, status_code=problem["status"], headers=headers, media_type=PROBLEM_TYPE
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Make an app answer every error with a problem.

    Args:
        app: The control plane.
    """
    app.add_exception_handler(RequestRefused, _on_refused)
    app.add_exception_handler(DirectoryProblem, _on_directory)
    app.add_exception_handler(QueryRefused, _on_query)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(StoreUnavailable, _on_store)
    app.add_exception_handler(CountingFailed, _on_counting)
    app.add_exception_handler(HTTPException, _on_http)
    # Starlette raises again after this answer was sent, so the server logs the traceback.
    app.add_exception_handler(Exception, _on_bug)


async def _on_refused(_request: Request, error: Exception) -> Response:
    refused = cast(RequestRefused, error)
    return problem_response(
        to_problem(refused.status, refused.detail, refused.code, refused.errors)
    )


async def _on_directory(_request: Request, error: Exception) -> Response:
    match error:
        case NotFound():
            return problem_response(to_problem(404, error.reason))
        case ManagedByConfig():
            return problem_response(to_problem(409, error.reason, "managed_by_config"))
        case Conflict():
            return problem_response(to_problem(409, error.reason))
        case Invalid():
            place = FieldProblem(field=f"body.{error.field}", reason=error.reason)
            is_named = error.reason.startswith(error.field)
            detail = error.reason if is_named else f"{error.field}: {error.reason}"
            return problem_response(to_problem(422, detail, errors=[place]))
        case _:
            raise error


async def _on_query(_request: Request, error: Exception) -> Response:
    return problem_response(to_problem(422, str(error)))


async def _on_store(_request: Request, error: Exception) -> Response:
    log.error("the control plane cannot reach a store: %s", error)
    detail = "a store this answer needs is not available; try again later"
    return problem_response(to_problem(503, detail), {"retry-after": "5"})


async def _on_counting(_request: Request, error: Exception) -> Response:
    log.error("the control plane cannot count tokens: %s", error)
    detail = "tokens cannot be counted at the moment; send input_tokens instead of messages"
    return problem_response(to_problem(503, detail, "counting_unavailable"))


async def _on_http(request: Request, error: Exception) -> Response:
    known = cast(HTTPException, error)
    detail = str(known.detail)
    if detail == _NOT_FOUND and not request.url.path.startswith("/api/v1"):
        detail = _ELSEWHERE
    return problem_response(to_problem(known.status_code, detail), known.headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed: %r", request.method, request.url.path, error)
    return problem_response(to_problem(500, "the gateway failed; its log says more"))


async def _on_validation(_request: Request, error: Exception) -> Response:
    errors = cast(RequestValidationError, error).errors()
    found = [_field_problem(one) for one in errors]
    if any(one["type"] == "json_invalid" for one in errors):
        return problem_response(to_problem(400, "the body is not JSON", errors=found))
    detail = "; ".join(f"{one.field}: {one.reason}" for one in found[:5])
    return problem_response(to_problem(422, detail, errors=found))


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """Name field and reason, but not the value: it may be long, a secret, or not even Unicode."""
    place = ".".join(str(part) for part in error["loc"])
    reason = str(error["msg"]).removeprefix("Value error, ")
    return FieldProblem(
        field=place[:200].encode("utf-8", "replace").decode(),
        reason=reason[:500].encode("utf-8", "replace").decode(),
    )
