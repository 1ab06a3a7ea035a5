"""Names models go by beside those of the catalog: Amazon's resource names and inference profiles.

Must never find a name for a model that is another one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

# Where a profile may send a call; ``regional`` is the catalog's word for all that stay near.
_GEOGRAPHIES: Final = re.compile(r"(?:us-gov|us|eu|apac|global|jp|au|ca|in|sa|me|af|regional)\.")
# Resources whose last part is the id of a model or of a profile of Amazon's own.
_OPEN_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(?:foundation-model|inference-profile)/([^/]+)"
)
# Throughput is bought for a length of context, which is written behind the version.
_CONTEXT: Final = re.compile(r"(:[0-9]+):(?:[0-9]+k|mm)$")
_REGIONAL: Final = "regional."
_NEAREST: Final = "us."
_GLOBAL: Final = "global."


def bedrock_base(name: str) -> str:
    """Take from a name of Bedrock's what does not tell the model.

    Args:
        name: Id or ARN of a model or of an inference profile.

    Returns:
        The id of the model where the name tells it, else the name.
    """
    return _GEOGRAPHIES.sub("", _model_id(name), count=1)


def _model_id(name: str) -> str:
    found = _OPEN_ARN.fullmatch(name)
    return _CONTEXT.sub(r"\1", name if found is None else found[1])


def _bedrock(name: str) -> Iterator[str]:
    """Spellings of one of Bedrock's names, the nearest price first.

    A profile that stays in a geography costs what such profiles cost, mostly a tenth more than the
    model; one that does not, and the model itself, what the model costs.
    https://aws.amazon.com/bedrock/pricing/, checked 2026-11-23.
    """
    model = _model_id(name)
    yield model
    geography = _GEOGRAPHIES.match(model)
    base = bedrock_base(name)
    if geography is not None and geography[0] != _GLOBAL:
        yield _REGIONAL + base
        yield _NEAREST + base
    yield base
    yield _REGIONAL + base


_SPELLINGS: Final[Mapping[str, Callable[[str], Iterator[str]]]] = MappingProxyType(
    {"bedrock": _bedrock}
)


def other_spellings(provider: str, name: str) -> Iterator[str]:
    """List what else a model may be called in the catalog.

    Args:
        provider: Catalog provider.
        name: A name the catalog does not know.

    Yields:
        Names whose prices the model has, the nearest first.
    """
    spell = _SPELLINGS.get(provider)
    if spell is not None:
        yield from spell(name)
