"""``python -m grafana.preview``: a picture of every board, with the data of a running stack.

Needs Chromium. Must never write anywhere but where it is told to.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from grafana.generate.boards import BOARDS
from grafana.preview.asking import Sources
from grafana.preview.page import WIDTH, to_page

_THEMES: Final = ("light", "dark")
_SHOT_S_MAX: Final = 60


def main() -> int:
    """Draw every board in both themes.

    Returns:
        0, or 2 when there is no Chromium.
    """
    parser = argparse.ArgumentParser(
        prog="python -m grafana.preview",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="make stack prints both addresses; Prometheus has data after a few minutes.",
    )
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--database", required=True, metavar="URL", help="of the ledger")
    parser.add_argument("--minutes", type=int, default=15, help="how long a span is shown (15)")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), metavar="FOLDER")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.stderr.write("no Chromium is installed: apt-get install chromium\n")
        return 2
    now = int(time.time())
    sources = Sources(
        prometheus=args.prometheus.rstrip("/"),
        database=args.database,
        start_s=now - args.minutes * 60,
        end_s=now,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        for theme in _THEMES:
            page, height = to_page(board.to_json(), sources, theme)
            name = board.name if theme == "light" else f"{board.name}-{theme}"
            picture = args.out / f"{name}.png"
            _shoot(chromium, page, height, picture)
            sys.stdout.write(f"{picture}  {picture.stat().st_size // 1024} KiB\n")
    return 0


def _shoot(chromium: str, page: str, height: int, picture: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "board.html"
        source.write_text(page, encoding="utf-8")
        command = [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{height}",
            f"--screenshot={picture.resolve()}",
            source.as_uri(),
        ]
        subprocess.run(  # noqa: S603 - a browser, on a page written here
            command, check=True, capture_output=True, timeout=_SHOT_S_MAX
        )


if __name__ == "__main__":
    sys.exit(main())
