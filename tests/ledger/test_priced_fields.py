"""What a record says of how it was priced: enough to price it again, and nothing to strangers."""

import msgspec

from gateway.ledger.chain import GENESIS, chain_hash
from gateway.ledger.record import LedgerRecord, to_public
from gateway.ledger.rows import to_line_rows
from gateway.ledger.segments import decode_record, encode_frame
from tests.contracts.records import make_line, make_record

PRICED = {
    "priced_as": "openai",
    "priced_model": "gpt-5",
    "tier": "flex",
    "region": "eu",
    "variants": {"image": "1024x1024"},
    "model_asked": "ours",
    "model_behind": "gpt-5",
    "tier_asked": "flex",
}


def test_an_entry_without_these_fields_keeps_its_bytes():
    """What an older version wrote down is encoded, and so hashed, as it was."""
    written = msgspec.json.encode(make_record(), order="deterministic")

    assert not [name for name in PRICED if f'"{name}"'.encode() in written]
    assert written == msgspec.json.encode(
        msgspec.json.decode(written, type=LedgerRecord), order="deterministic"
    )


def test_the_fields_are_part_of_the_hash():
    """Nobody can move a call to another tier afterwards."""
    hashes = {chain_hash(GENESIS, make_record(id="A", **{n: v})) for n, v in PRICED.items()}

    assert len(PRICED) == len(hashes - {chain_hash(GENESIS, make_record(id="A"))})


def test_the_journal_keeps_them():
    """They are there when the record is shipped after a restart."""
    record = make_record(**PRICED)
    payload = encode_frame(record)
    start = payload.index(b"{")

    assert record == decode_record(payload[start : payload.rindex(b"}") + 1])


def test_the_public_record_is_that_of_the_contract():
    """They stay inside."""
    assert to_public(make_record()).keys() == to_public(make_record(**PRICED)).keys()


def test_a_correction_takes_back_what_was_counted_without_a_price():
    """The same tokens, priced later, stand once in sums by meter."""
    lines = (make_line("input", "1000", 5), make_line("output", "-1.5"), make_line("output", "1.5"))
    later = make_record(corrects="A", usage={}, lines=lines)

    unpriced = [row for row in to_line_rows(later) if row["sku"] is None]
    assert [("input", "-1000", None)] == [
        (row["meter"], row["quantity"], row["cost_pico"]) for row in unpriced
    ]


def test_a_correction_of_what_was_counted_has_no_such_row():
    """Its lines say what its usage says."""
    fewer = make_record(corrects="A", usage={"input": -10}, lines=(make_line("input", "-10", -1),))

    assert [row for row in to_line_rows(fewer) if row["sku"] is None] == []
