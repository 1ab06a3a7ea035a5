"""Every price field of the litellm map: which price it is here, or why it is none.

Must never let a field pass that has no rule: an importer reports those by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from pricing.meters import Meter
from pricing.sku import STANDARD_TIER


@dataclass(frozen=True, slots=True)
class Supported:
    """A field that is one price, in currency units for one unit of the meter.

    Attributes:
        meter: What is counted.
        tier: Service tier.
        over: Holds when the whole prompt has more tokens than this.
        variant: Make of what is sold.
        beside: The variant tells this price from another price of the meter; a model that has no
            other one has this price without the variant.
    """

    meter: Meter
    tier: str = STANDARD_TIER
    over: int | None = None
    variant: str | None = None
    beside: bool = False


class Shape(Enum):
    """Fields that are more than one price, or whose meaning another field decides."""

    SECONDS_IN = "seconds of audio; with `cost_per_second` beside it, time of a reserved machine"
    SECONDS_OUT = "seconds of video made, or of audio spoken or transcribed, by the mode"
    QUERY = "a rerank is a search unit, any other query a request, by the mode"
    SEARCH_SIZES = "web searches; one price, or one variant for each size of context"
    BANDS = "one context band for each range of prompt lengths"
    OFF_PEAK = "prices with hours, one for each window"
    REGION_EU = "a multiplier of every token price, written out as rates of region eu"
    REGION_US = "a multiplier of every token price, written out as rates of region us"
    REGIONAL = "a multiplier of every token price, written out as rates of region regional"
    EXTRAS = "`us` is a multiplier for region us, `fast` one for tier fast; the rest is no price"
    PER_QUERY = "says that web searches count per query, as they do here; else the model is refused"


@dataclass(frozen=True, slots=True)
class Shaped:
    """A field read by its shape.

    Attributes:
        shape: How.
    """

    shape: Shape


@dataclass(frozen=True, slots=True)
class Refused:
    """A field that does not become a price.

    Attributes:
        reason: Why not.
        whole_model: Its other prices would bill calls wrong without it, so none is taken.
    """

    reason: str
    whole_model: bool = False


KeyRule = Supported | Shaped | Refused

_PIXELS: Final = Refused("no answer counts pixels; sizes of images are variants", whole_model=True)
_CLIP: Final = Refused(
    "the length of a single clip would choose the price, and no answer tells it", whole_model=True
)
_DBU: Final = Refused("units of the provider, not money; the price in money stands beside it")

KEYS: Final[Mapping[str, KeyRule]] = MappingProxyType(
    {
        "annotation_cost_per_page": Supported(Meter.PAGE, variant="annotated"),
        "annotation_cost_per_page_batches": Supported(
            Meter.PAGE, tier="batch", variant="annotated"
        ),
        "cache_creation_input_audio_token_cost": Refused(
            "no answer counts audio written to a cache"
        ),
        "cache_creation_input_token_cost": Supported(Meter.CACHE_WRITE),
        "cache_creation_input_token_cost_above_100k_tokens": Supported(
            Meter.CACHE_WRITE, over=100_000
        ),
        "cache_creation_input_token_cost_above_100k_tokens_batches": Supported(
            Meter.CACHE_WRITE, tier="batch", over=100_000
        ),
        "cache_creation_input_token_cost_above_1hr": Supported(Meter.CACHE_WRITE_1H),
        "cache_creation_input_token_cost_above_1hr_above_100k_tokens": Supported(
            Meter.CACHE_WRITE_1H, over=100_000
        ),
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": Supported(
            Meter.CACHE_WRITE_1H, over=200_000
        ),
        "cache_creation_input_token_cost_above_200k_tokens": Supported(
            Meter.CACHE_WRITE, over=200_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens": Supported(
            Meter.CACHE_WRITE, over=272_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens_batches": Supported(
            Meter.CACHE_WRITE, tier="batch", over=272_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens_decisions": Supported(
            Meter.CACHE_WRITE, tier="decisions", over=272_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens_flex": Supported(
            Meter.CACHE_WRITE, tier="flex", over=272_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens_priority": Supported(
            Meter.CACHE_WRITE, tier="priority", over=272_000
        ),
        "cache_creation_input_token_cost_above_272k_tokens_ultrafast": Supported(
            Meter.CACHE_WRITE, tier="ultrafast", over=272_000
        ),
        "cache_creation_input_token_cost_batches": Supported(Meter.CACHE_WRITE, tier="batch"),
        "cache_creation_input_token_cost_decisions": Supported(Meter.CACHE_WRITE, tier="decisions"),
        "cache_creation_input_token_cost_flex": Supported(Meter.CACHE_WRITE, tier="flex"),
        "cache_creation_input_token_cost_priority": Supported(Meter.CACHE_WRITE, tier="priority"),
        "cache_creation_input_token_cost_ultrafast": Supported(Meter.CACHE_WRITE, tier="ultrafast"),
        "cache_read_input_audio_token_cost": Supported(Meter.CACHE_READ_AUDIO),
        "cache_read_input_image_token_cost": Supported(Meter.CACHE_READ_IMAGE),
        "cache_read_input_token_cost": Supported(Meter.CACHE_READ),
        "cache_read_input_token_cost_above_100k_tokens": Supported(Meter.CACHE_READ, over=100_000),
        "cache_read_input_token_cost_above_100k_tokens_batches": Supported(
            Meter.CACHE_READ, tier="batch", over=100_000
        ),
        "cache_read_input_token_cost_above_200k_tokens": Supported(Meter.CACHE_READ, over=200_000),
        "cache_read_input_token_cost_above_200k_tokens_batches": Supported(
            Meter.CACHE_READ, tier="batch", over=200_000
        ),
        "cache_read_input_token_cost_above_200k_tokens_priority": Supported(
            Meter.CACHE_READ, tier="priority", over=200_000
        ),
        "cache_read_input_token_cost_above_272k_tokens": Supported(Meter.CACHE_READ, over=272_000),
        "cache_read_input_token_cost_above_272k_tokens_batches": Supported(
            Meter.CACHE_READ, tier="batch", over=272_000
        ),
        "cache_read_input_token_cost_above_272k_tokens_decisions": Supported(
            Meter.CACHE_READ, tier="decisions", over=272_000
        ),
        "cache_read_input_token_cost_above_272k_tokens_flex": Supported(
            Meter.CACHE_READ, tier="flex", over=272_000
        ),
        "cache_read_input_token_cost_above_272k_tokens_priority": Supported(
            Meter.CACHE_READ, tier="priority", over=272_000
        ),
        "cache_read_input_token_cost_above_272k_tokens_ultrafast": Supported(
            Meter.CACHE_READ, tier="ultrafast", over=272_000
        ),
        "cache_read_input_token_cost_above_512k_tokens": Supported(Meter.CACHE_READ, over=512_000),
        "cache_read_input_token_cost_balanced": Supported(Meter.CACHE_READ, tier="balanced"),
        "cache_read_input_token_cost_batches": Supported(Meter.CACHE_READ, tier="batch"),
        "cache_read_input_token_cost_decisions": Supported(Meter.CACHE_READ, tier="decisions"),
        "cache_read_input_token_cost_flex": Supported(Meter.CACHE_READ, tier="flex"),
        "cache_read_input_token_cost_priority": Supported(Meter.CACHE_READ, tier="priority"),
        "cache_read_input_token_cost_ultrafast": Supported(Meter.CACHE_READ, tier="ultrafast"),
        "citation_cost_per_token": Supported(Meter.OUTPUT, variant="citation"),
        "code_interpreter_cost_per_session": Supported(Meter.REQUEST, variant="code_interpreter"),
        "cost_per_second": Refused("time of a reserved machine is a commitment", whole_model=True),
        "explicit_cache_read_input_token_cost": Supported(Meter.CACHE_READ, variant="explicit"),
        "google_maps_grounding_cost_per_query": Supported(Meter.WEB_SEARCH, variant="google_maps"),
        "guardrail_cost_per_unit": Refused("no answer counts units of policy", whole_model=True),
        "input_cost_per_audio_per_second": Supported(Meter.AUDIO_SECOND),
        "input_cost_per_audio_per_second_above_128k_tokens": Supported(
            Meter.AUDIO_SECOND, over=128_000
        ),
        "input_cost_per_audio_token": Supported(Meter.INPUT_AUDIO),
        "input_cost_per_audio_token_batches": Supported(Meter.INPUT_AUDIO, tier="batch"),
        "input_cost_per_audio_token_priority": Supported(Meter.INPUT_AUDIO, tier="priority"),
        "input_cost_per_character": Supported(Meter.CHARACTER),
        "input_cost_per_character_above_128k_tokens": Supported(Meter.CHARACTER, over=128_000),
        "input_cost_per_image": Supported(Meter.IMAGE, variant="input", beside=True),
        "input_cost_per_image_above_128k_tokens": Supported(
            Meter.IMAGE, over=128_000, variant="input", beside=True
        ),
        "input_cost_per_image_token": Supported(Meter.INPUT_IMAGE),
        "input_cost_per_image_token_batches": Supported(Meter.INPUT_IMAGE, tier="batch"),
        "input_cost_per_pixel": _PIXELS,
        "input_cost_per_query": Shaped(Shape.QUERY),
        "input_cost_per_request": Supported(Meter.REQUEST),
        "input_cost_per_second": Shaped(Shape.SECONDS_IN),
        "input_cost_per_text_message": Supported(Meter.REQUEST, variant="text_message"),
        "input_cost_per_token": Supported(Meter.INPUT),
        "input_cost_per_token_above_100k_tokens": Supported(Meter.INPUT, over=100_000),
        "input_cost_per_token_above_100k_tokens_batches": Supported(
            Meter.INPUT, tier="batch", over=100_000
        ),
        "input_cost_per_token_above_128k_tokens": Supported(Meter.INPUT, over=128_000),
        "input_cost_per_token_above_200k_tokens": Supported(Meter.INPUT, over=200_000),
        "input_cost_per_token_above_200k_tokens_batches": Supported(
            Meter.INPUT, tier="batch", over=200_000
        ),
        "input_cost_per_token_above_200k_tokens_priority": Supported(
            Meter.INPUT, tier="priority", over=200_000
        ),
        "input_cost_per_token_above_272k_tokens": Supported(Meter.INPUT, over=272_000),
        "input_cost_per_token_above_272k_tokens_batches": Supported(
            Meter.INPUT, tier="batch", over=272_000
        ),
        "input_cost_per_token_above_272k_tokens_decisions": Supported(
            Meter.INPUT, tier="decisions", over=272_000
        ),
        "input_cost_per_token_above_272k_tokens_flex": Supported(
            Meter.INPUT, tier="flex", over=272_000
        ),
        "input_cost_per_token_above_272k_tokens_priority": Supported(
            Meter.INPUT, tier="priority", over=272_000
        ),
        "input_cost_per_token_above_272k_tokens_ultrafast": Supported(
            Meter.INPUT, tier="ultrafast", over=272_000
        ),
        "input_cost_per_token_above_512k_tokens": Supported(Meter.INPUT, over=512_000),
        "input_cost_per_token_balanced": Supported(Meter.INPUT, tier="balanced"),
        "input_cost_per_token_batches": Supported(Meter.INPUT, tier="batch"),
        "input_cost_per_token_cache_hit": Supported(Meter.CACHE_READ),
        "input_cost_per_token_decisions": Supported(Meter.INPUT, tier="decisions"),
        "input_cost_per_token_flex": Supported(Meter.INPUT, tier="flex"),
        "input_cost_per_token_priority": Supported(Meter.INPUT, tier="priority"),
        "input_cost_per_token_ultrafast": Supported(Meter.INPUT, tier="ultrafast"),
        "input_cost_per_video_per_second": Supported(
            Meter.VIDEO_SECOND, variant="input", beside=True
        ),
        "input_cost_per_video_per_second_above_128k_tokens": Supported(
            Meter.VIDEO_SECOND, over=128_000, variant="input", beside=True
        ),
        "input_cost_per_video_per_second_above_15s_interval": _CLIP,
        "input_cost_per_video_per_second_above_8s_interval": _CLIP,
        "input_cost_per_video_token": Supported(Meter.INPUT_VIDEO),
        "input_cost_per_video_token_batches": Supported(Meter.INPUT_VIDEO, tier="batch"),
        "input_dbu_cost_per_token": _DBU,
        "ocr_cost_per_credit": Refused("no answer counts credits", whole_model=True),
        "ocr_cost_per_page": Supported(Meter.PAGE),
        "ocr_cost_per_page_batches": Supported(Meter.PAGE, tier="batch"),
        "off_peak_pricing": Shaped(Shape.OFF_PEAK),
        "output_cost_per_audio_token": Supported(Meter.OUTPUT_AUDIO),
        "output_cost_per_character": Supported(Meter.CHARACTER, variant="output", beside=True),
        "output_cost_per_character_above_128k_tokens": Supported(
            Meter.CHARACTER, over=128_000, variant="output", beside=True
        ),
        "output_cost_per_image": Supported(Meter.IMAGE),
        "output_cost_per_image_0.5K": Supported(Meter.IMAGE, variant="0.5K"),
        "output_cost_per_image_1024": Supported(Meter.IMAGE, variant="1024"),
        "output_cost_per_image_1536": Supported(Meter.IMAGE, variant="1536"),
        "output_cost_per_image_1K": Supported(Meter.IMAGE, variant="1K"),
        "output_cost_per_image_2K": Supported(Meter.IMAGE, variant="2K"),
        "output_cost_per_image_4K": Supported(Meter.IMAGE, variant="4K"),
        "output_cost_per_image_512": Supported(Meter.IMAGE, variant="512"),
        "output_cost_per_image_token": Supported(Meter.OUTPUT_IMAGE),
        "output_cost_per_image_token_batches": Supported(Meter.OUTPUT_IMAGE, tier="batch"),
        "output_cost_per_pixel": _PIXELS,
        "output_cost_per_reasoning_token": Supported(Meter.REASONING),
        "output_cost_per_second": Shaped(Shape.SECONDS_OUT),
        "output_cost_per_second_1080p": Supported(Meter.VIDEO_SECOND, variant="1080p"),
        "output_cost_per_second_2k": Supported(Meter.VIDEO_SECOND, variant="2k"),
        "output_cost_per_second_480p": Supported(Meter.VIDEO_SECOND, variant="480p"),
        "output_cost_per_second_4k": Supported(Meter.VIDEO_SECOND, variant="4k"),
        "output_cost_per_second_720p": Supported(Meter.VIDEO_SECOND, variant="720p"),
        "output_cost_per_second_768p": Supported(Meter.VIDEO_SECOND, variant="768p"),
        "output_cost_per_token": Supported(Meter.OUTPUT),
        "output_cost_per_token_above_100k_tokens": Supported(Meter.OUTPUT, over=100_000),
        "output_cost_per_token_above_100k_tokens_batches": Supported(
            Meter.OUTPUT, tier="batch", over=100_000
        ),
        "output_cost_per_token_above_128k_tokens": Supported(Meter.OUTPUT, over=128_000),
        "output_cost_per_token_above_200k_tokens": Supported(Meter.OUTPUT, over=200_000),
        "output_cost_per_token_above_200k_tokens_batches": Supported(
            Meter.OUTPUT, tier="batch", over=200_000
        ),
        "output_cost_per_token_above_200k_tokens_priority": Supported(
            Meter.OUTPUT, tier="priority", over=200_000
        ),
        "output_cost_per_token_above_272k_tokens": Supported(Meter.OUTPUT, over=272_000),
        "output_cost_per_token_above_272k_tokens_batches": Supported(
            Meter.OUTPUT, tier="batch", over=272_000
        ),
        "output_cost_per_token_above_272k_tokens_decisions": Supported(
            Meter.OUTPUT, tier="decisions", over=272_000
        ),
        "output_cost_per_token_above_272k_tokens_flex": Supported(
            Meter.OUTPUT, tier="flex", over=272_000
        ),
        "output_cost_per_token_above_272k_tokens_priority": Supported(
            Meter.OUTPUT, tier="priority", over=272_000
        ),
        "output_cost_per_token_above_272k_tokens_ultrafast": Supported(
            Meter.OUTPUT, tier="ultrafast", over=272_000
        ),
        "output_cost_per_token_above_512k_tokens": Supported(Meter.OUTPUT, over=512_000),
        "output_cost_per_token_balanced": Supported(Meter.OUTPUT, tier="balanced"),
        "output_cost_per_token_batches": Supported(Meter.OUTPUT, tier="batch"),
        "output_cost_per_token_decisions": Supported(Meter.OUTPUT, tier="decisions"),
        "output_cost_per_token_flex": Supported(Meter.OUTPUT, tier="flex"),
        "output_cost_per_token_priority": Supported(Meter.OUTPUT, tier="priority"),
        "output_cost_per_token_ultrafast": Supported(Meter.OUTPUT, tier="ultrafast"),
        "output_cost_per_video_per_second": Supported(Meter.VIDEO_SECOND),
        "output_cost_per_video_token": Supported(Meter.OUTPUT_VIDEO),
        "output_dbu_cost_per_token": _DBU,
        "provider_specific_entry": Shaped(Shape.EXTRAS),
        "regional_endpoint_uplift_multiplier": Shaped(Shape.REGIONAL),
        "regional_processing_uplift_multiplier_eu": Shaped(Shape.REGION_EU),
        "regional_processing_uplift_multiplier_us": Shaped(Shape.REGION_US),
        "search_context_cost_per_query": Shaped(Shape.SEARCH_SIZES),
        "search_free_requests": Refused(
            "an allowance belongs to an account, not to a call: see commitments"
        ),
        "tiered_pricing": Shaped(Shape.BANDS),
        "web_search_billing_unit": Shaped(Shape.PER_QUERY),
    }
)

# Fields that are no price. Those that begin with ``supports_`` are not either.
NOT_PRICES: Final = frozenset(
    {
        "audio_transcription_config",
        "bedrock_converse_supports_strict_tools",
        "bedrock_output_config_effort_ceiling",
        "comment",
        "default_reasoning_effort",
        "deprecation_date",
        "gemini_audio_only_live",
        "gemini_native_audio",
        "litellm_provider",
        "max_input_tokens",
        "max_output_tokens",
        "max_tokens",
        "metadata",
        "mode",
        "output_vector_size",
        "prompt_cache_min_tokens",
        "reasoning_effort_levels",
        "rpm",
        "rules",
        "source",
        "supported_audio_formats",
        "supported_endpoints",
        "supported_modalities",
        "supported_output_modalities",
        "supported_regions",
        "thinking_always_on",
        "token_count_framing",
        "token_count_model",
        "token_count_tokenizer",
        "tpm",
        "use_openai_responses_path",
        "uses_embed_content",
        "vertex_ai_audio_api",
    }
)
