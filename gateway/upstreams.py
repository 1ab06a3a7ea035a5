"""How a configured provider is reached, and from where: over HTTP, signed, or in this process.

Must never reach the network.
"""

import re
from importlib import import_module
from typing import Final
from urllib.parse import urlsplit

from gateway.demo import DemoUpstream
from gateway.settings_models import ProviderSettings
from gateway.signing import RequestSigner, SignedUpstream
from gateway.upstream import HttpUpstream, Upstream

# As https://docs.aws.amazon.com/general/latest/gr/bedrock.html lists them, checked 2026-11-23.
_BEDROCK_HOST: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws|api)\..+")


def open_upstream(one: ProviderSettings) -> Upstream:
    """Make what sends to a provider.

    Args:
        one: Its settings, checked.

    Returns:
        An upstream; that of Bedrock without an API key signs every request.
    """
    if one.base_url is None:
        return DemoUpstream()
    upstream = HttpUpstream(one.timeout_s)
    if one.kind != "bedrock" or one.api_key is not None:
        return upstream
    found = (one.aws_access_key_id, one.aws_secret_access_key, one.aws_session_token)
    given = tuple(None if part is None else part.get_secret_value() for part in found)
    keys = None if given[0] is None else given

    def open_signer() -> RequestSigner:
        # house: lazy-import because botocore takes 0.2 s and 20 MB, and few gateways sign.
        signer: RequestSigner = import_module("gateway.aws").open_signer(one.region, keys)
        return signer

    return SignedUpstream(upstream, open_signer)


def region_of(kind: str, base_url: str, region: str | None = None) -> str | None:
    """Find the region class an address stands for.

    Args:
        kind: Provider kind.
        base_url: Its address.
        region: Cloud region of the settings.

    Returns:
        ``us`` or ``eu`` for OpenAI's hosts with data residency, which charge an uplift on some
        models; Bedrock's region, which has its own prices for some; ``None`` elsewhere.

    Source:
        https://platform.openai.com/docs/guides/your-data, regional hosts; the other regions carry
        the uplift of ``eu``. https://aws.amazon.com/bedrock/pricing/: a call has the price of the
        region it is sent to. Checked 2026-11-23.
    """
    host = urlsplit(base_url).hostname or ""
    if kind == "bedrock":
        told = _BEDROCK_HOST.fullmatch(host)
        return region or (None if told is None else told[1])
    prefix, _, rest = host.partition(".")
    if kind != "openai" or rest != "api.openai.com":
        return None
    return prefix if prefix == "us" else "eu"
