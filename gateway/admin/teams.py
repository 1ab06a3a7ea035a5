"""``/api/v1/teams``."""

import asyncio
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway.admin.fields import Id, InstantOut, Name, PageQuery, PathId, Tags
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.parts import ACTOR, Parts
from gateway.directory_model import ManagedBy, Team

router = APIRouter(prefix="/teams", tags=["teams"], route_class=ReplayRoute)


class TeamIn(BaseModel):
    """A team to make; its name is its id unless given."""

    model_config = ConfigDict(extra="forbid")

    id: Id = Field(examples=["search"])
    name: Name | None = Field(default=None, examples=["Search"])
    tags: Tags = {}


class TeamPatch(TypedDict, total=False):
    """What to change of a team."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Name
    tags: Tags


class TeamOut(BaseModel):
    """A team."""

    id: str
    name: str
    tags: dict[str, str]
    managed_by: ManagedBy
    created_at: InstantOut | None

    @classmethod
    def from_team(cls, team: Team) -> Self:
        """Show a team.

        Args:
            team: Any team.

        Returns:
            What clients see of it.
        """
        return cls(
            id=team.id,
            name=team.name,
            tags=dict(team.tags),
            managed_by=team.managed_by,
            created_at=team.created_at,
        )


class TeamPage(BaseModel):
    """One page of teams, ordered by id."""

    items: list[TeamOut]
    next_cursor: str | None


@router.get("")
def list_teams(parts: Parts, paging: PageQuery) -> TeamPage:
    """List teams."""
    page = parts.directory.teams.page(paging.limit, paging.cursor)
    items = [TeamOut.from_team(team) for team in page.items]
    return TeamPage(items=items, next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_team(parts: Parts, body: TeamIn) -> TeamOut:
    """Make a team."""
    team = Team(id=body.id, name=body.name or body.id, tags=body.tags)
    made = await asyncio.to_thread(parts.directory.teams.create, team, actor=ACTOR)
    await parts.on_change()
    return TeamOut.from_team(made)


@router.get("/{id}")
def read_team(parts: Parts, team_id: PathId) -> TeamOut:
    """Show a team."""
    return TeamOut.from_team(parts.directory.teams.load(team_id))


@router.patch("/{id}")
async def update_team(parts: Parts, team_id: PathId, body: TeamPatch) -> TeamOut:
    """Change a team; what is not given stays as it is."""
    kept = await asyncio.to_thread(parts.directory.teams.update, team_id, body, actor=ACTOR)
    await parts.on_change()
    return TeamOut.from_team(kept)


@router.delete("/{id}", status_code=204, response_class=Response)
async def delete_team(parts: Parts, team_id: PathId) -> None:
    """Delete a team that has no projects."""
    await asyncio.to_thread(parts.directory.teams.delete, team_id, actor=ACTOR)
    await parts.on_change()
