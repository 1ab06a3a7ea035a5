"""Usage: totals are sums of disjoint counts, and what is unknown is never zero."""

from pricing.meters import INPUT_METERS, OUTPUT_METERS, PRICED_AS, TRAITS, Meter
from pricing.usage import NOTHING, Basis, Usage, unknown_usage


def test_totals_add_the_tokens_of_each_direction():
    """Cached tokens are input, reasoning is output, searches are neither."""
    counts = {
        Meter.INPUT: 10,
        Meter.CACHE_READ: 200,
        Meter.CACHE_WRITE_1H: 3000,
        Meter.OUTPUT: 7,
        Meter.REASONING: 80,
        Meter.WEB_SEARCH: 5,
    }
    usage = Usage(counts=counts, basis=Basis.REPORTED)

    assert (3210, 87) == (usage.input_total, usage.output_total)


def test_unknown_usage_has_no_totals():
    """A call of unknown size has neither an input nor an output total, and says why."""
    usage = unknown_usage("the connection broke")

    assert (None, None) == (usage.input_total, usage.output_total)
    assert ("the connection broke",) == usage.flags
    assert {} == dict(usage.counts)


def test_nothing_billable_is_zero():
    """A call that did nothing has totals of zero, which is not unknown."""
    assert (0, 0) == (NOTHING.input_total, NOTHING.output_total)


def test_every_meter_has_a_unit_and_at_most_one_direction():
    """No token belongs to both directions, and only tokens belong to one."""
    for meter in Meter:
        in_token_meters = meter in INPUT_METERS or meter in OUTPUT_METERS
        assert in_token_meters == (TRAITS[meter].unit == "token")
    assert frozenset() == INPUT_METERS & OUTPUT_METERS
    assert "second" == TRAITS[Meter.AUDIO_SECOND].unit


def test_a_meter_is_priced_as_one_of_its_own_direction():
    """A fallback never turns input into output, and never leads in a circle."""
    for meter in PRICED_AS:
        seen = {meter}
        wanted = PRICED_AS.get(meter)
        while wanted is not None:
            assert wanted not in seen
            assert TRAITS[wanted].direction == TRAITS[meter].direction
            seen.add(wanted)
            wanted = PRICED_AS.get(wanted)
