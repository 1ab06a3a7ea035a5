"""Ids sort by time and never repeat, whatever the clock does."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import IdSource

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
T0 = 1_795_435_200_000


def epoch_ms_of(minted: str) -> int:
    """Read the time of an id as the specification writes it."""
    value = 0
    for letter in minted[:10]:
        value = value * 32 + ALPHABET.index(letter)
    return value


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=50))
def test_ids_only_grow(times: list[int]) -> None:
    """Also when the clock steps back, and within a millisecond."""
    ids = IdSource()
    minted = [ids.mint(at) for at in times]

    assert minted == sorted(set(minted))
    assert all(26 == len(one) and set(one) <= set(ALPHABET) for one in minted)


def test_an_id_tells_its_time() -> None:
    """The first ten letters are the milliseconds."""
    ids = IdSource()

    assert [T0, T0 + 1, T0 + 99] == [epoch_ms_of(ids.mint(at)) for at in (T0, T0 + 1, T0 + 99)]


def test_many_ids_of_one_millisecond_differ() -> None:
    """Counting carries over every place it has to."""
    ids = IdSource()
    minted = [ids.mint(T0) for _ in range(10_000)]

    assert minted == sorted(set(minted))
    assert {T0} == {epoch_ms_of(one) for one in minted}


def test_a_clock_that_steps_back_does_not_bring_old_ids_back() -> None:
    """After a step back ids stay at the newest time until the clock has caught up."""
    ids = IdSource()
    minted = [ids.mint(T0 + step) for step in (0, 5, 4, -1000, 5, 6)]

    assert minted == sorted(set(minted))
    assert T0 + 6 == epoch_ms_of(minted[-1])


def test_processes_do_not_count_alike() -> None:
    """Two sources at one instant share nothing but the time."""
    assert IdSource().mint(T0) != IdSource().mint(T0)
