"""What Amazon calls a model leads to its price."""

import pytest

from pricing.book import load_book
from pricing.names import bedrock_base, other_spellings

BOOK = load_book("2026-11-23.2", providers=["bedrock", "openai"])
ARN = "arn:aws:bedrock:us-east-1:111122223333:"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("anthropic.claude-opus-4-7", "anthropic.claude-opus-4-7"),
        ("global.anthropic.claude-opus-4-7", "global.anthropic.claude-opus-4-7"),
        # A geography without a price of its own costs what geographies cost, not the model.
        ("ca.anthropic.claude-opus-4-7", "us.anthropic.claude-opus-4-7"),
        ("ca.anthropic.claude-opus-5", "regional.anthropic.claude-opus-5"),
        ("us.openai.gpt-6.1-terra", "regional.openai.gpt-6.1-terra"),
        ("eu.mistral.devstral-2-123b", "mistral.devstral-2-123b"),
        ("global.mistral.devstral-2-123b", "mistral.devstral-2-123b"),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
            "regional.anthropic.claude-3-haiku-20240307-v1:0",
        ),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:1:inference-profile/us-gov.anthropic.claude-opus-5",
            "us-gov.anthropic.claude-opus-5",
        ),
        ("amazon.titan-embed-text-v2:0:8k", "amazon.titan-embed-text-v2:0"),
    ],
)
def test_a_name_leads_to_the_nearest_price(name: str, model: str) -> None:
    """Ids, profiles across regions, ARNs that tell the model, and lengths of context."""
    found = BOOK.find_model("bedrock", name)

    assert found is not None
    assert model == found.model


@pytest.mark.parametrize(
    "name",
    [
        ARN + "application-inference-profile/a1b2",
        ARN + "imported-model/a1b2",
        ARN + "default-prompt-router/anthropic.claude:1",
        ARN + "provisioned-model/a1b2",
        "anthropic.claude-opus-9",
    ],
)
def test_a_name_that_hides_its_model_has_no_price(name: str) -> None:
    """Nothing is guessed."""
    assert BOOK.find_model("bedrock", name) is None


def test_other_providers_have_no_other_spellings() -> None:
    """A prefix of Amazon's means nothing elsewhere."""
    assert BOOK.find_model("openai", "us.gpt-5") is None
    assert [] == list(other_spellings("openai", "us.gpt-5"))
    assert "anthropic.claude-opus-4-7" == bedrock_base("us.anthropic.claude-opus-4-7")
