"""Rated lines as charges of FOCUS, the FinOps open cost and usage specification. Pure.

Must never invent a cost: what has none is no charge, and is counted beside.

Source:
    https://focus.finops.org/focus-specification/v1-2/, https://focus.finops.org/focus-specification/,
    checked 2026-11-23. 1.4 renames the columns of providers and has none for tokens either.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET

from gateway.clock import to_rfc3339
from gateway.ledger.parquet_file import DECIMAL_PLACES, Kind
from gateway.ledger.record import LedgerLine, LedgerRecord
from pricing.meters import TRAITS, Meter

FocusVersion = Literal["1.2", "1.4"]
VERSIONS: Final[tuple[FocusVersion, ...]] = get_args(FocusVersion)

_HOUR_US: Final = 3600 * 1_000_000
_PICO: Final = Decimal(10) ** 12
_EXACT: Final = Context(prec=60)
_PLACES: Final = Decimal(1).scaleb(-DECIMAL_PLACES)
_PROVIDERS: Final[Mapping[FocusVersion, tuple[str, str]]] = {
    "1.2": ("ProviderName", "PublisherName"),
    "1.4": ("ServiceProviderName", "HostProviderName"),
}
_UNITS: Final[Mapping[str, str]] = {
    "token": "Tokens",
    "second": "Seconds",
    "gpu_second": "Seconds",
    "image": "Images",
    "character": "Characters",
    "page": "Pages",
    "search_unit": "Search Units",
    "web_search": "Searches",
    "request": "Requests",
}
_DECIMALS: Final = frozenset(
    {
        *("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"),
        *("ContractedUnitPrice", "ListUnitPrice", "PricingQuantity", "ConsumedQuantity"),
    }
)


def focus_columns(version: FocusVersion) -> dict[str, Kind]:
    """Name the columns of a version.

    Args:
        version: Of the specification.

    Returns:
        What each holds, in their order; own ones, which begin with ``x_``, last.
    """
    seller, host = _PROVIDERS[version]
    names = (
        *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType"),
        *("BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory"),
        *("ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd"),
        *("ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost"),
        *("ContractedUnitPrice", "EffectiveCost", host, "InvoiceId", "InvoiceIssuerName"),
        *("ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingQuantity"),
        *("PricingUnit", seller, "RegionId", "RegionName", "ServiceCategory", "ServiceName"),
        *("ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"),
        *("SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
        *("x_CostStatus", "x_CredentialId", "x_PriceVersionId", "x_RecordId", "x_UsageSource"),
    )
    return {name: "decimal" if name in _DECIMALS else "text" for name in names}


def to_focus(
    records: Iterable[LedgerRecord], version: FocusVersion, period: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Write records as charges, a row for each rated line.

    Args:
        records: Calls of the billing period, and corrections made in it; taken one by one.
        version: Of the specification.
        period: First microsecond since 1970 of the billing period, and the first after it.

    Yields:
        Values by column: decimals, text, ``None``.
    """
    for record in records:
        common = _common(record, version, period)
        for line in record.lines:
            yield {**common, **_charge(record, line)}


def to_focus_cells(row: Mapping[str, Any]) -> list[object]:
    """Write a charge for CSV.

    Args:
        row: As ``to_focus`` makes it.

    Returns:
        Its cells. A decimal has a point, by which validators know it.
    """
    return [_plain(value) if isinstance(value, Decimal) else value for value in row.values()]


def _common(record: LedgerRecord, version: FocusVersion, period: tuple[int, int]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(focus_columns(version))
    start_us = record.started_at_us // _HOUR_US * _HOUR_US
    seller, host = _PROVIDERS[version]
    # A correction of a call of an earlier month belongs to the month it is made in.
    is_late = record.corrects is not None and record.started_at_us < period[0]
    owners = {"team": record.team, "project": record.project}
    tags = {**{name: value for name, value in owners.items() if value}, **record.tags}
    row |= {
        "BillingAccountId": record.organization,
        "BillingAccountName": record.organization,
        "BillingAccountType": "Organization",
        "BillingCurrency": record.currency,
        "BillingPeriodStart": _instant(period[0]),
        "BillingPeriodEnd": _instant(period[1]),
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if is_late else None,
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _instant(start_us),
        "ChargePeriodEnd": _instant(start_us + _HOUR_US),
        "InvoiceIssuerName": record.provider,
        "PricingCategory": "Standard",
        "PricingCurrency": record.currency,
        seller: record.provider,
        host: record.provider,
        "RegionId": _text(record.region),
        "RegionName": _text(record.region),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": record.provider,
        "SubAccountId": record.project,
        "SubAccountName": record.project,
        "SubAccountType": None if record.project is None else "Project",
        "Tags": _json(tags),
        "x_CostStatus": record.cost_status,
        "x_CredentialId": record.key,
        "x_PriceVersionId": record.price_version,
        "x_RecordId": record.id,
        "x_UsageSource": record.basis,
    }
    return row


def _charge(record: LedgerRecord, line: LedgerLine) -> dict[str, Any]:
    meter = _METERS.get(line.meter)
    unit = "Units" if meter is None else _UNITS.get(TRAITS[meter].unit, "Units")
    cost, listed = _amount(line.cost_pico), _amount(line.list_cost_pico)
    quantity = Decimal(line.quantity)
    priced = _EXACT.divide(quantity, Decimal(line.per))
    price = Decimal(line.unit_price)
    name = line.meter.replace("_", " ")
    named = f"{name} tokens" if unit == "Tokens" else name
    return {
        "BilledCost": cost,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "ListCost": listed,
        "ContractedUnitPrice": price,
        # Lines keep the price that was paid; the published one is what the published cost says.
        "ListUnitPrice": price
        if cost == listed or not priced
        else _EXACT.divide(listed, priced).quantize(_PLACES, context=_EXACT),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "PricingQuantity": priced.quantize(_PLACES, context=_EXACT),
        "PricingUnit": unit if line.per == 1 else f"{line.per} {unit}",
        "ChargeDescription": f"{record.model or line.sku}: {named}",
        "SkuId": line.sku,
        "SkuMeter": named.title(),
        "SkuPriceId": line.price_id,
        "SkuPriceDetails": _json(_details(record, meter)),
    }


_METERS: Final[Mapping[str, Meter]] = {meter.value: meter for meter in Meter}


def _details(record: LedgerRecord, meter: Meter | None) -> dict[str, str]:
    tier, model = _text(record.tier), record.model
    found = {"x_ModelId": model, "x_ServiceTier": tier}
    if meter is not None and TRAITS[meter].unit == "token":
        direction = TRAITS[meter].direction
        found["x_TokenDirection"] = direction.title()
        if direction == "input":
            role = meter.value
            action = "Read" if role.startswith("cache_read") else "Uncached"
            found["x_TokenCacheAction"] = "Write" if role.startswith("cache_write") else action
    return {name: value for name, value in found.items() if value}


def _amount(pico: int) -> Decimal:
    return _EXACT.divide(Decimal(pico), _PICO)


def _plain(value: Decimal) -> str:
    whole, _, fraction = f"{value:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _instant(us: int) -> str:
    return to_rfc3339(us)[:19] + "Z"


def _text(value: object) -> str | None:
    return None if value is UNSET or not isinstance(value, str) else value


def _json(values: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(sorted(values.items()))).decode()
