"""Gemini's embeddings, caches, images and videos: input alone, or charged by the piece.

Must never let what is fetched later be booked as nothing.
"""

from typing import Any, Final

import msgspec

from gateway.wire.facts import Answer, Asked, BadRequest, ReplyHead, RequestFacts
from gateway.wire.gemini_answer import GeminiFold
from gateway.wire.gemini_request import (
    MEDIA_INPUT_METERS,
    NO_FEES,
    model_named,
    read_prompt,
    tier_asked,
)
from gateway.wire.gemini_usage import number_of, parts_of, read_usage
from gateway.wire.google_format import GoogleFormat
from gateway.wire.google_request import (
    INPUT_TOKENS_SPARE,
    decode_body,
    model_of,
    refuse_masks,
    refuse_other_model,
    refuse_repeats,
    region_of_location,
)
from gateway.wire.openai_answer import UNREADABLE
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.sku import STANDARD_TIER
from pricing.usage import Basis, Usage

# What Imagen makes where nothing says how many, and Veo how long.
# Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api and
# .../veo-video-generation, checked 2026-11-23.
_IMAGES_USUAL: Final = 4
_VIDEO_S_USUAL: Final = 8
_SAMPLES_MAX: Final = 1000

_object: Final = msgspec.json.Decoder(dict[str, Any])


class _Silent(GoogleFormat):
    """A format whose answers hold no text of a model's."""

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False.
        """
        return False


class EmbedContent(_Silent):
    """The wire format of ``:embedContent`` and ``:batchEmbedContents``."""

    api = "gemini.embed_content"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; there is no output.

        Raises:
            BadRequest: It cannot be read, or names two models.

        Source:
            https://ai.google.dev/api/embeddings, checked 2026-11-23.
        """
        refuse_masks(asked)
        request = decode_body(asked.body, _object, "a request for embeddings")
        refuse_repeats(asked.body, ("model", "content", "requests"))
        model = model_named(asked.names)
        parts = request.get("requests")
        for one in [request, *(parts if isinstance(parts, list) else ())]:
            named = one.get("model") if isinstance(one, dict) else None
            refuse_other_model(named if isinstance(named, str) else None, model)
        is_text = read_prompt(asked.body) is not None
        return embedding_facts(asked, model, is_text=is_text)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; some models report no usage.
        """
        fold = GeminiFold(facts, head)
        try:
            fold.fold(body, is_sketch=True)
        except UNREADABLE:
            return fold.answer
        fold.close()
        return fold.answer


def embedding_facts(asked: Asked, model: str, *, is_text: bool) -> RequestFacts:
    """Say what a request for embeddings can come to.

    Args:
        asked: The request as it came.
        model: The model.
        is_text: Whether its bytes bound its tokens.

    Returns:
        The facts; there is no output.
    """
    meters = frozenset({Meter.INPUT})
    return RequestFacts(
        model=model,
        stream=False,
        wants_usage=True,
        tier=tier_asked(asked, None),
        input_tokens_max=len(asked.body) + INPUT_TOKENS_SPARE if is_text else None,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=meters if is_text else meters | MEDIA_INPUT_METERS,
        fees=NO_FEES,
        region=region_of_location(asked.names),
    )


class Predict(_Silent):
    """The wire format of ``:predict``: images of Imagen, and embeddings on Vertex AI."""

    api = "gemini.predict"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: what is made is charged by the piece, what is embedded by the token.

        Raises:
            BadRequest: It cannot be read.

        Source:
            https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api and
            .../text-embeddings-api, checked 2026-11-23.
        """
        refuse_masks(asked)
        request = decode_body(asked.body, _object, "a request for predictions")
        refuse_repeats(asked.body, ("instances", "parameters"))
        model = model_named(asked.names)
        if "embedding" in model:
            is_text = all(
                isinstance(one, dict) and isinstance(one.get("content"), str)
                for one in _list_of(request.get("instances"))
            )
            return embedding_facts(asked, model, is_text=is_text)
        instances = max(1, len(_list_of(request.get("instances"))))
        samples = samples_of(request, _IMAGES_USUAL) * instances
        return made_facts(asked, model, {Meter.IMAGE: samples})

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            What is to be embedded; ``None`` where it is not text.
        """
        try:
            instances = _list_of(_object.decode(asked.body).get("instances"))
        except UNREADABLE:
            return None
        texts = [one.get("content") if isinstance(one, dict) else None for one in instances]
        return None if None in texts else [str(text) for text in texts]

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What was made: pieces that were filtered out are not billed. Of embeddings the tokens.
        """
        answer = Answer()
        try:
            said = _object.decode(body)
        except UNREADABLE:
            return answer
        answer.is_error = bool(said.get("error"))
        predictions = _list_of(said.get("predictions"))
        answer.is_readable = answer.is_complete = answer.is_finished = "predictions" in said
        if not answer.is_readable:
            return answer
        if Meter.IMAGE not in facts.fees:
            answer.usage = _tokens_embedded(predictions)
            return answer
        made = sum(1 for one in predictions if isinstance(one, dict) and _is_made(one))
        answer.tells_fees = True
        counts = {Meter.IMAGE: made} if made else {}
        answer.usage = Usage(counts=counts, basis=Basis.REPORTED if made else Basis.NONE)
        return answer


def _is_made(prediction: dict[str, Any]) -> bool:
    return any(name in prediction for name in ("bytesBase64Encoded", "gcsUri", "audioContent"))


def _tokens_embedded(predictions: list[Any]) -> Usage | None:
    """Add the tokens of every text up; ``None`` where one is not told."""
    tokens = 0
    for one in predictions:
        try:
            count = number_of(one["embeddings"]["statistics"]["token_count"])
        except (KeyError, TypeError):
            return None
        if count is None or count < 0:
            return None
        tokens += count
    return Usage(counts={Meter.INPUT: tokens}, basis=Basis.REPORTED) if tokens else None


def _list_of(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def samples_of(request: dict[str, Any], usual: int) -> int:
    """Read how many pieces are to be made of each instance.

    Args:
        request: The request, decoded.
        usual: How many are made where it does not say.

    Returns:
        That number.

    Raises:
        BadRequest: It is no number.
    """
    parameters = request.get("parameters")
    given = parameters.get("sampleCount") if isinstance(parameters, dict) else None
    if given is None:
        return usual
    count = number_of(given)
    if count is None or not 1 <= count <= _SAMPLES_MAX:
        raise BadRequest("parameters.sampleCount is no number of pieces")
    return count


def made_facts(
    asked: Asked, model: str, fees: dict[Meter, int], resolution: str | None = None
) -> RequestFacts:
    """Say what a request that is charged by the piece can come to.

    Args:
        asked: The request as it came.
        model: The model.
        fees: The most of each meter.
        resolution: In which make a video is sold; ``None`` for the usual one.

    Returns:
        The facts; there are no tokens.
    """
    return RequestFacts(
        model=model,
        stream=False,
        wants_usage=True,
        tier=STANDARD_TIER,
        input_tokens_max=0,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=frozenset(),
        fees=fees,
        variants=NO_VARIANTS if resolution is None else {Meter.VIDEO_SECOND: resolution},
        region=region_of_location(asked.names),
    )


class PredictLongRunning(_Silent):
    """The wire format of ``:predictLongRunning``: videos of Veo, fetched later."""

    api = "gemini.predict_long_running"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: seconds of all videos asked for.

        Raises:
            BadRequest: It cannot be read.

        Source:
            https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/
            veo-video-generation, checked 2026-11-23.
        """
        refuse_masks(asked)
        request = decode_body(asked.body, _object, "a request for a video")
        refuse_repeats(asked.body, ("instances", "parameters"))
        parameters = request.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        seconds = number_of(parameters.get("durationSeconds", _VIDEO_S_USUAL))
        if seconds is None or not 1 <= seconds <= _SAMPLES_MAX:
            raise BadRequest("parameters.durationSeconds is no number of seconds")
        resolution = parameters.get("resolution")
        pieces = samples_of(request, 1) * max(1, len(_list_of(request.get("instances"))))
        return made_facts(
            asked,
            model_named(asked.names),
            {Meter.VIDEO_SECOND: seconds * pieces},
            str(resolution)[:16].lower() if resolution else None,
        )

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer: the name of an operation, whose outcome is fetched later.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            All seconds asked for, estimated: a video that fails is not billed, and nobody tells.
        """
        answer = Answer()
        try:
            said = _object.decode(body)
        except UNREADABLE:
            return answer
        answer.is_error = bool(said.get("error"))
        name = said.get("name")
        if isinstance(name, str) and head.status < 300:
            answer.is_readable = answer.is_complete = answer.is_finished = True
            answer.request_id = name.rpartition("/")[2][:256]
            answer.tells_fees = True
            answer.usage = Usage(
                counts=dict(facts.fees),
                basis=Basis.ESTIMATED,
                flags=("the video is fetched later: booked at the seconds asked for",),
            )
        return answer


class CachedContents(_Silent):
    """The wire format of ``POST /cachedContents``, which reads its content once."""

    api = "gemini.cached_contents"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came; its body names the model.

        Returns:
            The facts: the content is input, there is no output.

        Raises:
            BadRequest: It cannot be read, or names no model.

        Source:
            https://ai.google.dev/api/caching, checked 2026-11-23.
        """
        refuse_masks(asked)
        request = decode_body(asked.body, _object, "a request for a cache")
        refuse_repeats(
            asked.body, ("model", "contents", "systemInstruction", "tools", "cachedContent")
        )
        named = request.get("model")
        if not isinstance(named, str) or not named:
            raise BadRequest("the request body names no model")
        is_text = read_prompt(asked.body) is not None
        return embedding_facts(asked, model_of(named), is_text=is_text)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What was read into the cache. Its storage is not metered, and a flag says so.
        """
        answer = Answer()
        try:
            said = _object.decode(body)
        except UNREADABLE:
            return answer
        answer.is_error = bool(said.get("error"))
        if head.status >= 300 or answer.is_error:
            return answer
        told = said.get("usageMetadata")
        answer.is_readable = answer.is_complete = answer.is_finished = True
        answer.flags = ("the storage of the cache is not metered",)
        if isinstance(told, dict):
            parts = parts_of(told)
            # A cache has a total only; all of it was read.
            answer.usage = read_usage(parts._replace(prompt=parts.total or parts.prompt, output=0))
        return answer
