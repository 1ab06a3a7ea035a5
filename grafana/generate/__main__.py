"""Write every board to its file."""

from grafana.generate.boards import BOARDS, FOLDER

if __name__ == "__main__":
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(board.to_text(), encoding="utf-8")
