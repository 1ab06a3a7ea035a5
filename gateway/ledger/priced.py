"""How much was counted at each price: what a price change is multiplied with.

Must never ask a database to add up fractions of seconds, which it would round.
"""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from sqlalchemy import BigInteger, Connection, case, cast, func, null, or_, select

from gateway.clock import epoch_us
from gateway.tables import record_lines, records
from pricing.months import Span
from pricing.sku import PriceId
from pricing.usage import Quantity


def load_priced(connection: Connection, span: Span) -> Mapping[PriceId, Quantity]:
    """Add up what was counted at each price id.

    Args:
        connection: Inside a transaction.
        span: When the calls began; read it a day at a time.

    Returns:
        Quantity by price id, corrections with their sign.
    """
    lines = record_lines.c
    is_fraction = or_(lines.quantity.like("%.%"), lines.quantity.ilike("%e%"))
    whole = case((is_fraction, null()), else_=cast(lines.quantity, BigInteger))
    fraction = case((is_fraction, lines.quantity))
    query = (
        select(
            lines.price_id,
            fraction.label("fraction"),
            func.count().label("lines"),
            func.sum(whole).label("whole"),
        )
        .select_from(records.join(record_lines, lines.record_id == records.c.id))
        .where(
            records.c.started_at_us >= epoch_us(span.start),
            records.c.started_at_us < epoch_us(span.end),
            lines.price_id.is_not(None),
        )
        .group_by(lines.price_id, fraction)
    )
    sums: dict[PriceId, Quantity] = defaultdict(int)
    for row in connection.execute(query):
        sums[row.price_id] += int(row.whole or 0)
        if row.fraction is not None:
            sums[row.price_id] += Decimal(row.fraction) * int(row.lines)
    return sums
