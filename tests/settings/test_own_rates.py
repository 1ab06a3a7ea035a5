"""The gateway's book: a published version and the prices of the settings, by one name."""

from datetime import UTC, datetime

import pytest

from gateway.own_rates import fleet_of, open_book
from pricing.book import BookBroken, load_book
from tests.settings.test_settings import load

HEAD = "providers: {house: {kind: vllm, priced_as: null}}\n"
ROW = (
    "{provider: house, model: llama, gpus: 4, gpu_hour: 2 USD, tokens_per_s: 5, starts: 2026-01-01}"
)
AT = datetime(2026, 11, 23, tzinfo=UTC)


def test_own_prices_stand_beside_published_ones(tmp_path) -> None:
    """In the whole book and in every part of it, under the same version."""
    settings = load(tmp_path, f"{HEAD}self_hosted: [{ROW}]\n")
    whole, part = open_book(settings), open_book(settings, providers=["house"])

    assert whole.version == part.version
    assert {"house"} == part.providers
    assert whole.version.manifest.providers.keys() == whole.providers
    assert part.find_card("house", "llama", AT)
    assert whole.find_card("openai", "gpt-5", AT)
    assert 4 == fleet_of(settings, "house").gpus_at("llama", AT)
    assert 1 == fleet_of(settings, "openai").gpus_at("llama", AT)


def test_a_version_is_found_again_by_its_name(tmp_path) -> None:
    """With own prices, and without them for records from before there were any."""
    settings = load(tmp_path, f"{HEAD}self_hosted: [{ROW}]\n")
    name = open_book(settings).version.version
    published = load_book().version.version

    assert name == open_book(settings, name).version.version
    assert published == open_book(settings, published, ["openai"]).version.version
    with pytest.raises(BookBroken, match="with the prices under self_hosted"):
        open_book(settings, f"{published}+local.00000000", ["openai"])


def test_no_own_prices_is_the_published_book(tmp_path) -> None:
    """Nothing is said where there is nothing to say."""
    assert load_book().version == open_book(load(tmp_path, HEAD)).version


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (f"[{ROW}, {ROW.replace('01}', '01T00:00:00Z}')}]", "there twice"),
        (f"[{ROW}, {ROW.replace('llama', 'other, aliases: [llama]')}]", "llama"),
    ],
)
def test_names_that_are_claimed_twice_break_the_book(tmp_path, rows, says) -> None:
    """The gateway does not start with a book nobody can be sure of."""
    settings = load(tmp_path, f"{HEAD}self_hosted: {rows}\n")

    with pytest.raises(BookBroken, match=says):
        open_book(settings)
