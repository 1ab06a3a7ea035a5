"""Which part of the price book a gateway loads, and how the rest is reached."""

import pytest

from gateway.admin.books import WholeBook
from gateway.settings import load_settings
from gateway.starting import priced_providers
from pricing.book import load_book


@pytest.mark.parametrize(
    ("providers", "needed"),
    [
        ("{}", {"demo"}),
        ("{o: {kind: openai, priced_as: openai}}", {"demo", "openai"}),
        (
            "{mine: {kind: vllm}, azure: {kind: azure, base_url: 'https://a.b'}}",
            {"azure_ai", "demo", "openai", "vllm"},
        ),
    ],
)
def test_only_what_the_configuration_uses_is_loaded(tmp_path, providers, needed):
    """The catalog providers of everything configured, and the demo's."""
    file = tmp_path / "taximeter.yaml"
    file.write_text(f"providers: {providers}\n", "utf-8")
    settings = load_settings(file, {})
    found = priced_providers(settings)

    assert needed == found
    assert load_book(providers=found).providers <= found


def test_the_rest_is_loaded_once_when_it_is_asked_for():
    """Until then it costs nothing, and a gateway that uses everything never loads it twice."""
    part, whole = load_book(providers=["demo"]), load_book()
    asked = []

    def load(version):
        asked.append(version)
        return whole

    rest = WholeBook(load)
    assert [] == asked
    assert whole is rest(part)
    assert whole is rest(part)
    assert [part.version.version] == asked
    assert whole is WholeBook(load)(whole)
    assert 1 == len(asked)
