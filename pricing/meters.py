"""What can be counted: the closed set of meters, their units, directions and price fallbacks.

Must never hold a price.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

Direction = Literal["input", "output", "none"]


class Meter(StrEnum):
    """One kind of billable quantity; disjoint from every other meter of the same call.

    Token meters name direction, cache role and modality; the rest are counted in their own unit.
    """

    INPUT = "input"
    INPUT_AUDIO = "input_audio"
    INPUT_IMAGE = "input_image"
    INPUT_VIDEO = "input_video"
    CACHE_READ = "cache_read"
    CACHE_READ_AUDIO = "cache_read_audio"
    CACHE_READ_IMAGE = "cache_read_image"
    CACHE_READ_VIDEO = "cache_read_video"
    CACHE_WRITE = "cache_write"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    OUTPUT = "output"
    OUTPUT_AUDIO = "output_audio"
    OUTPUT_IMAGE = "output_image"
    OUTPUT_VIDEO = "output_video"
    REASONING = "reasoning"
    WEB_SEARCH = "web_search"
    IMAGE = "image"
    AUDIO_SECOND = "audio_second"
    VIDEO_SECOND = "video_second"
    CHARACTER = "character"
    PAGE = "page"
    SEARCH_UNIT = "search_unit"
    REQUEST = "request"
    GPU_SECOND = "gpu_second"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterTraits:
    """What a meter measures.

    Attributes:
        unit: ``token`` or the name of the unit counted.
        direction: The side of the call whose token total it belongs to; ``none`` if not tokens.
    """

    unit: str
    direction: Direction


def _traits_of(meter: Meter) -> MeterTraits:
    name = meter.value
    if name.startswith(("input", "cache_")):
        return MeterTraits(unit="token", direction="input")
    if name.startswith(("output", "reasoning")):
        return MeterTraits(unit="token", direction="output")
    return MeterTraits(unit=name.removeprefix("audio_").removeprefix("video_"), direction="none")


TRAITS: Final[Mapping[Meter, MeterTraits]] = MappingProxyType({m: _traits_of(m) for m in Meter})

INPUT_METERS: Final = frozenset(m for m in Meter if TRAITS[m].direction == "input")
OUTPUT_METERS: Final = frozenset(m for m in Meter if TRAITS[m].direction == "output")

# A model that publishes no own rate for the left meter bills it at the rate of the right one:
# reasoning is output, a modality without its own price is priced as text, and a model without a
# cache discount bills cached tokens as input. Cache writes are missing on purpose: where they have
# a price it is a surcharge, so guessing the input rate would bill too little.
# Provider pages are cited in the catalog; guarded by tests/pricing/test_rating.py.
PRICED_AS: Final[Mapping[Meter, Meter]] = MappingProxyType(
    {
        Meter.REASONING: Meter.OUTPUT,
        Meter.INPUT_AUDIO: Meter.INPUT,
        Meter.INPUT_IMAGE: Meter.INPUT,
        Meter.INPUT_VIDEO: Meter.INPUT,
        Meter.CACHE_READ: Meter.INPUT,
        Meter.CACHE_READ_AUDIO: Meter.INPUT_AUDIO,
        Meter.CACHE_READ_IMAGE: Meter.CACHE_READ,
        Meter.CACHE_READ_VIDEO: Meter.CACHE_READ,
    }
)
