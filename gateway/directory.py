"""The directory: teams, projects, keys and budgets of the configuration file and of the API.

Must never show or keep a key's secret after it was issued, and never change what the file says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from gateway.budgets.rules import Budget
from gateway.callers import Caller
from gateway.clock import Clock, SystemClock
from gateway.directory_config import read_configured
from gateway.directory_model import Key, NotFound, Project, Team
from gateway.directory_nouns import Budgets, Desk, Keys, Projects, Teams, to_budget
from gateway.directory_rows import budget_shelf, key_shelf, project_shelf, team_shelf
from gateway.directory_top_ups import TopUps
from gateway.ids import IdSource
from gateway.settings import Settings
from gateway.tables import directory_version
from gateway.tables import keys as key_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything the data plane needs of the directory, at one version of it.

    Attributes:
        version: Grows with every change; compare with ``Directory.load_version``.
        callers: By the SHA-256 digest of their key's secret; revoked keys are absent.
        budgets: Every budget, ordered by id.
    """

    version: int
    callers: Mapping[bytes, Caller]
    budgets: tuple[Budget, ...]


class Directory:
    """The directory. Every method waits for the database: call it from a thread.

    Attributes:
        organization: Id of the organisation everything belongs to.
        teams: The teams.
        projects: The projects.
        keys: The keys.
        budgets: The budgets.
        top_ups: What was added to single windows of them.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        """Open the directory.

        Args:
            engine: Of a database with the tables of ``gateway.tables``.
            settings: For the entities of the configuration file.
            clock: For when things are made and changed.
            ids: For audit rows.
        """
        self._configured = read_configured(settings)
        self._teams = team_shelf(self._configured.teams)
        self._projects = project_shelf(self._configured.projects)
        self._keys = key_shelf(self._configured.keys)
        self._budgets = budget_shelf(self._configured.budgets)
        self.organization = self._configured.organization
        desk = Desk(engine=engine, clock=clock or SystemClock(), ids=ids or IdSource())
        self._desk = desk
        self.teams = Teams(self._teams, desk)
        self.projects = Projects(self._projects, desk, self._teams)
        self.keys = Keys(self._keys, desk, self._projects)
        self.top_ups = TopUps(self._budgets, desk)
        self.budgets = Budgets(
            self._budgets,
            desk,
            {
                "organization": self._check_organization,
                "team": self._teams.load,
                "project": self._projects.load,
                "key": self._keys.load,
            },
            self.top_ups.close,
        )

    def load_version(self) -> int:
        """Read how many changes the directory has seen.

        Returns:
            Zero for a new database; grows with every change by any process.
        """
        with self._desk.read() as connection:
            return _version(connection)

    def load_snapshot(self) -> Snapshot:
        """Read everything the data plane needs.

        Returns:
            The snapshot. A key whose project or team is gone from the configuration file is absent.
        """
        with self._desk.read() as connection:
            version = _version(connection)
            budgets = self._budgets.load_all(connection)
            added = self.top_ups.load_all(connection)
            digests = self._load_digests(connection)
            keys = self._keys.load_all(connection)
            projects = self._projects.load_all(connection)
            teams = self._teams.load_all(connection)
        callers: dict[bytes, Caller] = {}
        for key in keys.values():
            project = projects.get(key.project)
            team = None if project is None else teams.get(project.team)
            if project is not None and team is not None:
                callers[digests[key.id]] = self._caller(team, project, key)
        return Snapshot(
            version=version,
            callers=callers,
            budgets=tuple(to_budget(budgets[id_], added.get(id_, ())) for id_ in sorted(budgets)),
        )

    def first_start(self, *, actor: str = "first start") -> str | None:
        """Make a team, a project and a key, all named ``default``, if there is nothing at all.

        Args:
            actor: Who does it, for the audit.

        Returns:
            The key's secret, shown this once; ``None`` when a team exists or a key ever did.
        """
        with self._desk.change(actor) as change:
            has_ever_had_key = change.connection.scalar(select(key_table.c.id).limit(1)) is not None
            if has_ever_had_key or self._teams.load_all(change.connection):
                return None
            self.teams.add(change, Team(id="default", name="Default"))
            self.projects.add(change, Project(id="default", team="default", name="Default"))
            return self.keys.add(change, Key(id="default", project="default")).secret

    def _load_digests(self, connection: Connection) -> dict[str, bytes]:
        rows = connection.execute(
            select(key_table.c.id, key_table.c.secret_sha256).where(self._keys.live)
        )
        stored = {row.id: bytes.fromhex(row.secret_sha256) for row in rows}
        return {**stored, **self._configured.digests}

    def _caller(self, team: Team, project: Project, key: Key) -> Caller:
        # The most specific wins: what is set for a whole team is a default, and a project or key
        # that says otherwise means it. Guarded by test_directory.py::test_specific_tags_win.
        tags = {**team.tags, **project.tags, **key.tags}
        return Caller(
            organization=self.organization,
            team=team.id,
            project=project.id,
            key=key.id,
            tags=dict(sorted(tags.items())),
            models=key.models,
            expires_at=key.expires_at,
        )

    def _check_organization(self, _connection: Connection, wanted: str) -> None:
        if wanted != self.organization:
            reason = f"there is no organization {wanted[:64]}; this one is {self.organization}"
            raise NotFound("organization", wanted, reason)


def _version(connection: Connection) -> int:
    version = connection.scalar(select(directory_version.c.version))
    return 0 if version is None else version
