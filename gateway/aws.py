"""Signing requests to Amazon with botocore: its signer, its chain of credentials.

Must never be imported at start: botocore takes a tenth of a second, and most never need it.
"""

from typing import Any, Final, NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from gateway.upstream import UpstreamRequest, UpstreamUnsent

SERVICE: Final = "bedrock"
# Signed beside the host; everything else may be changed by whatever stands in between.
_SIGNED: Final = ("content-type",)
_SIGNED_PREFIX: Final = "x-amz"
# botocore fetches new credentials when the old ones last no longer than this.
_REFRESH_S: Final = 15 * 60


class AwsKeys(NamedTuple):
    """Credentials of the settings.

    Attributes:
        access_key_id: Public part.
        secret_access_key: Secret part.
        session_token: For temporary credentials; ``None`` for lasting ones.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


class AwsSigner:
    """Signs requests with Signature Version 4.

    Source:
        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html, checked 2026-11-23.
    """

    def __init__(self, region: str, keys: AwsKeys | None) -> None:
        """Find the credentials; may read files and ask the network.

        Args:
            region: Region the signature is for.
            keys: Credentials; ``None`` for those botocore finds: environment, shared files, single
                sign-on, container or instance role.
        """
        self._region = region
        self._found: Any = Credentials(*keys) if keys is not None else _find()

    def must_wait(self) -> bool:
        """Tell whether signing would wait.

        Returns:
            True where there are no credentials yet, or they are to be fetched again.
        """
        if self._found is None:
            return True
        needs_refresh = getattr(self._found, "refresh_needed", None)
        return needs_refresh is not None and bool(needs_refresh(_REFRESH_S))

    def sign(self, request: UpstreamRequest) -> UpstreamRequest:
        """Add the signature.

        Args:
            request: As it is to be sent, but for the signature.

        Returns:
            The same request with ``authorization``, ``x-amz-date`` and, for temporary credentials,
            ``x-amz-security-token``.

        Raises:
            UpstreamUnsent: There are no credentials, or they cannot be fetched.
        """
        if self._found is None:
            self._found = _find()
        if self._found is None:
            raise UpstreamUnsent("no AWS credentials: set api_key or aws_access_key_id")
        try:
            credentials = self._found.get_frozen_credentials()
        except BotoCoreError as failed:
            raise UpstreamUnsent(f"no AWS credentials: {type(failed).__name__}") from failed
        signed = AWSRequest(
            method=request.method,
            url=request.url,
            data=request.body,
            headers={
                name: value
                for name, value in request.headers
                if name in _SIGNED or name.startswith(_SIGNED_PREFIX)
            },
        )
        SigV4Auth(credentials, SERVICE, self._region).add_auth(signed)
        rest = [(n, v) for n, v in request.headers if n not in signed.headers]
        added = [(name.lower(), value) for name, value in signed.headers.items()]
        return UpstreamRequest(
            method=request.method, url=request.url, headers=[*rest, *added], body=request.body
        )


def _find() -> Any:  # noqa: ANN401 - botocore has no types
    try:
        return get_session().get_credentials()
    except BotoCoreError as failed:
        raise UpstreamUnsent(f"no AWS credentials: {type(failed).__name__}") from failed


def open_signer(region: str, keys: tuple[str, str, str | None] | None) -> AwsSigner:
    """Make a signer.

    Args:
        region: Region the signature is for.
        keys: As ``AwsKeys``; ``None`` for those botocore finds.

    Returns:
        The signer.

    Raises:
        UpstreamUnsent: The chain of credentials is broken.
    """
    return AwsSigner(region, None if keys is None else AwsKeys(*keys))
