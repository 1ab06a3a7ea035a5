"""``/api/v1/keys``. Must never show a secret but in the answer that makes the key."""

import asyncio
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway.admin.fields import Id, InstantIn, InstantOut, Models, PageQuery, PathId, Tags
from gateway.admin.idempotency import SecretOnceRoute
from gateway.admin.parts import ACTOR, Parts
from gateway.directory_model import Key, ManagedBy

router = APIRouter(prefix="/keys", tags=["keys"], route_class=SecretOnceRoute)


class KeyIn(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    id: Id = Field(examples=["rag-ci"])
    project: Id = Field(examples=["rag"])
    models: Models = ["*"]
    tags: Tags = {}
    expires_at: InstantIn | None = None


class KeyPatch(TypedDict, total=False):
    """What to change of a key. Its project cannot change: budgets and reports rest on it."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    models: Models
    tags: Tags
    expires_at: InstantIn | None


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: str
    project: str
    models: list[str]
    tags: dict[str, str]
    expires_at: InstantOut | None
    managed_by: ManagedBy
    created_at: InstantOut | None

    @classmethod
    def from_key(cls, key: Key, **more: str) -> Self:
        """Show a key.

        Args:
            key: Any key.
            more: Fields beside those of every key.

        Returns:
            What clients see of it.
        """
        return cls(
            id=key.id,
            project=key.project,
            models=list(key.models),
            tags=dict(key.tags),
            expires_at=key.expires_at,
            managed_by=key.managed_by,
            created_at=key.created_at,
            **more,
        )


class NewKeyOut(KeyOut):
    """A new key with its secret, which is shown this once and kept nowhere."""

    secret: str = Field(examples=["sk-tm-..."])


class KeyPage(BaseModel):
    """One page of keys that are not revoked, ordered by id."""

    items: list[KeyOut]
    next_cursor: str | None


@router.get("")
def list_keys(parts: Parts, paging: PageQuery) -> KeyPage:
    """List keys that are not revoked."""
    page = parts.directory.keys.page(paging.limit, paging.cursor)
    return KeyPage(items=[KeyOut.from_key(key) for key in page.items], next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_key(parts: Parts, body: KeyIn) -> NewKeyOut:
    """Make a key.

    Its secret is in this answer only. A repeat with the same ``Idempotency-Key`` is answered by a
    409 ``secret_shown_once``, because the secret is not kept.
    """
    key = Key(
        id=body.id,
        project=body.project,
        models=tuple(body.models),
        tags=body.tags,
        expires_at=body.expires_at,
    )
    issued = await asyncio.to_thread(parts.directory.keys.create, key, actor=ACTOR)
    await parts.on_change()
    return NewKeyOut.from_key(issued.key, secret=issued.secret)


@router.get("/{id}")
def read_key(parts: Parts, key_id: PathId) -> KeyOut:
    """Show a key."""
    return KeyOut.from_key(parts.directory.keys.load(key_id))


@router.patch("/{id}")
async def update_key(parts: Parts, key_id: PathId, body: KeyPatch) -> KeyOut:
    """Change a key; what is not given stays as it is."""
    fields = {**body, "models": tuple(body["models"])} if "models" in body else body
    kept = await asyncio.to_thread(parts.directory.keys.update, key_id, fields, actor=ACTOR)
    await parts.on_change()
    return KeyOut.from_key(kept)


@router.delete("/{id}", status_code=204, response_class=Response)
async def revoke_key(parts: Parts, key_id: PathId) -> None:
    """Revoke a key for good. Its id stays taken, because the ledger names keys by id."""
    await asyncio.to_thread(parts.directory.keys.delete, key_id, actor=ACTOR)
    await parts.on_change()
