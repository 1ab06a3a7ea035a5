"""Every board there is, and where their files lie.

Must never hold a panel: those are in the modules by subject.
"""

from pathlib import Path
from typing import Final

from grafana.generate.model import Board
from grafana.generate.money import EXECUTIVE, MODELS, TEAMS
from grafana.generate.running import BUDGETS, HEALTH, QUALITY

BOARDS: Final[tuple[Board, ...]] = (EXECUTIVE, TEAMS, MODELS, QUALITY, BUDGETS, HEALTH)
FOLDER: Final = Path(__file__).parents[1] / "dashboards"
