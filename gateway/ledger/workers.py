"""Who shares budgets: every gateway process, by the name of its journal in the ledger.

Must never forget a worker by itself: what its journal still holds may be money.
"""

from dataclasses import dataclass

from sqlalchemy import Engine, insert, select, update

from gateway.ledger.store import store_errors
from gateway.tables import workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker as the database knows it.

    Attributes:
        writer: Name of its journal.
        from_seq: Number of the last record in the journal when it started; it counts later ones.
        started_at_us: When it started last, microseconds since 1970.
        seen_at_us: When it was last seen.
        retired_at_us: Since when everything it did is in the ledger; ``None`` while that is open.
    """

    writer: str
    from_seq: int
    started_at_us: int
    seen_at_us: int
    retired_at_us: int | None


class Workers:
    """Keeps the list. Every method raises ``StoreUnavailable`` when the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self) -> tuple[Worker, ...]:
        """Read every worker there ever was.

        Returns:
            By name.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.connect() as connection:
            rows = connection.execute(select(workers).order_by(workers.c.writer)).mappings()
            return tuple(Worker(**row) for row in rows)

    def register(self, writer: str, from_seq: int, now_us: int) -> None:
        """Note that a worker has started, before it counts anything.

        Args:
            writer: Name of its journal.
            from_seq: Number of the last record in it.
            now_us: Microseconds since 1970.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        fields = {
            "from_seq": from_seq,
            "started_at_us": now_us,
            "seen_at_us": now_us,
            "retired_at_us": None,
        }
        with store_errors(), self._engine.begin() as connection:
            is_known = update(workers).where(workers.c.writer == writer).values(**fields)
            if not connection.execute(is_known).rowcount:
                connection.execute(insert(workers).values(writer=writer, **fields))

    def see(self, writer: str, now_us: int) -> None:
        """Note that a worker is there.

        Args:
            writer: Name of its journal.
            now_us: Microseconds since 1970.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.begin() as connection:
            connection.execute(
                update(workers).where(workers.c.writer == writer).values(seen_at_us=now_us)
            )

    def retire(self, writer: str, now_us: int) -> bool:
        """Note that a worker has gone, and that the ledger holds everything it did.

        Args:
            writer: Name of its journal.
            now_us: Microseconds since 1970.

        Returns:
            Whether it was there.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.begin() as connection:
            gone = (
                update(workers)
                .where(workers.c.writer == writer, workers.c.retired_at_us.is_(None))
                .values(retired_at_us=now_us)
            )
            return bool(connection.execute(gone).rowcount)
