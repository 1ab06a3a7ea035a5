"""How ``taximeter doctor`` looks at Redis. Must never change anything there."""

from collections.abc import Iterator
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from gateway.commands.doctor_checks import Finding
from gateway.settings import Settings

_ANSWER_S_MAX: Final = 3
# Hashes of several fields in one command, and scripts that may publish.
_VERSION_MIN: Final = 5
# When it is full, writes fail and nothing is thrown out.
_KEEPS: Final = "noeviction"


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Check that the Redis which gateways share answers; say so where there is none.

    Args:
        settings: As loaded.

    Yields:
        One finding per address.
    """
    urls = settings.storage.redis_url
    if urls is None:
        yield Finding.ok("redis", "none configured: budgets are those of one process")
        return
    for url in (urls,) if isinstance(urls, str) else urls:
        yield from _check(url)


def _check(url: str) -> Iterator[Finding]:
    mend = "start it, or set storage.redis_url"
    client = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=_ANSWER_S_MAX,
        socket_connect_timeout=_ANSWER_S_MAX,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        told = client.info("server")
        policy = _policy_of(client)
    except (RedisError, OSError) as down:
        yield Finding.fail("redis", str(down), mend)
        return
    finally:
        client.close()
    version = str(told.get("redis_version", "0"))
    if int(version.partition(".")[0]) < _VERSION_MIN:
        yield Finding.fail("redis", f"version {version}", f"use Redis {_VERSION_MIN} or newer")
        return
    yield Finding.ok("redis", f"version {version} answers")
    if policy not in (_KEEPS, ""):
        # What is thrown out is read again from the ledger, while hard budgets refuse.
        seen = f"maxmemory-policy is {policy}: a full Redis may throw out what budgets have claimed"
        mend = f"`CONFIG SET maxmemory-policy {_KEEPS}`, and the same in its configuration file"
        yield Finding.warn("redis", seen, mend)


def _policy_of(client: Redis) -> str:
    """Read what Redis does when it is full; empty where it does not say."""
    try:
        return str(client.info("memory").get("maxmemory_policy", ""))
    except ResponseError:
        return ""  # Some hosts allow no look at it.
