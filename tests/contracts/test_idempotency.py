"""Keys of repeats: whoever comes first carries a request out, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from gateway.admin.idempotency import AnswerStore, StoredAnswer
from gateway.admin.problems import RequestRefused
from tests.contracts.conftest import Ledger

WORKERS = 6
NOW_US = 1_795_392_000_000_000


def test_one_of_several_claims_wins(ledger: Ledger) -> None:
    """Workers that are sent one request at once: one does it, the others say it is under way."""
    store = AnswerStore(ledger.engine)
    together = Barrier(WORKERS)

    def claim(key: str) -> str:
        together.wait(timeout=30)
        try:
            return "mine" if store.claim(key, "digest", NOW_US) is None else "answered"
        except RequestRefused as refused:
            return f"{refused.status} {refused.code}"

    with ThreadPoolExecutor(WORKERS) as pool:
        for number in range(10):
            told = sorted(pool.map(claim, [f"key-{number}"] * WORKERS))
            assert ["409 idempotency_key_in_use"] * (WORKERS - 1) + ["mine"] == told


def test_a_repeat_finds_the_first_answer(ledger: Ledger) -> None:
    """Once the request was carried out, its answer is everybody's."""
    store = AnswerStore(ledger.engine)
    answer = StoredAnswer(status=201, body='{"id": "made"}')

    assert store.claim("key", "digest", NOW_US) is None
    store.keep("key", answer)

    assert answer == store.claim("key", "digest", NOW_US + 1)


def test_a_key_given_back_can_be_claimed_again(ledger: Ledger) -> None:
    """A request that was refused may be mended and sent with the same key."""
    store = AnswerStore(ledger.engine)

    assert store.claim("key", "digest", NOW_US) is None
    store.forget("key")

    assert store.claim("key", "other digest", NOW_US) is None
