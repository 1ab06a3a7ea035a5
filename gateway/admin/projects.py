"""``/api/v1/projects``."""

import asyncio
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway.admin.fields import Id, InstantOut, Name, PageQuery, PathId, Tags
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.parts import ACTOR, Parts
from gateway.directory_model import ManagedBy, Project

router = APIRouter(prefix="/projects", tags=["projects"], route_class=ReplayRoute)


class ProjectIn(BaseModel):
    """A project to make; its name is its id unless given."""

    model_config = ConfigDict(extra="forbid")

    id: Id = Field(examples=["rag"])
    team: Id = Field(examples=["search"])
    name: Name | None = Field(default=None, examples=["RAG"])
    tags: Tags = {}


class ProjectPatch(TypedDict, total=False):
    """What to change of a project. Its team cannot change: budgets and reports rest on it."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Name
    tags: Tags


class ProjectOut(BaseModel):
    """A project."""

    id: str
    team: str
    name: str
    tags: dict[str, str]
    managed_by: ManagedBy
    created_at: InstantOut | None

    @classmethod
    def from_project(cls, project: Project) -> Self:
        """Show a project.

        Args:
            project: Any project.

        Returns:
            What clients see of it.
        """
        return cls(
            id=project.id,
            team=project.team,
            name=project.name,
            tags=dict(project.tags),
            managed_by=project.managed_by,
            created_at=project.created_at,
        )


class ProjectPage(BaseModel):
    """One page of projects, ordered by id."""

    items: list[ProjectOut]
    next_cursor: str | None


@router.get("")
def list_projects(parts: Parts, paging: PageQuery) -> ProjectPage:
    """List projects."""
    page = parts.directory.projects.page(paging.limit, paging.cursor)
    items = [ProjectOut.from_project(project) for project in page.items]
    return ProjectPage(items=items, next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_project(parts: Parts, body: ProjectIn) -> ProjectOut:
    """Make a project."""
    project = Project(id=body.id, team=body.team, name=body.name or body.id, tags=body.tags)
    made = await asyncio.to_thread(parts.directory.projects.create, project, actor=ACTOR)
    await parts.on_change()
    return ProjectOut.from_project(made)


@router.get("/{id}")
def read_project(parts: Parts, project_id: PathId) -> ProjectOut:
    """Show a project."""
    return ProjectOut.from_project(parts.directory.projects.load(project_id))


@router.patch("/{id}")
async def update_project(parts: Parts, project_id: PathId, body: ProjectPatch) -> ProjectOut:
    """Change a project; what is not given stays as it is."""
    kept = await asyncio.to_thread(parts.directory.projects.update, project_id, body, actor=ACTOR)
    await parts.on_change()
    return ProjectOut.from_project(kept)


@router.delete("/{id}", status_code=204, response_class=Response)
async def delete_project(parts: Parts, project_id: PathId) -> None:
    """Delete a project that has no keys."""
    await asyncio.to_thread(parts.directory.projects.delete, project_id, actor=ACTOR)
    await parts.on_change()
