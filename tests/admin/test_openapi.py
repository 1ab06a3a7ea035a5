"""Whatever fits the OpenAPI document is answered as the document says, and never by a 500."""

import atexit
import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.admin.test_alerts import raise_alerts
from tests.admin.test_reports import record, unknown
from tests.admin.world import ADMIN, World

# Not the check that bad requests are refused: some of what it makes bad is lost on the way into an
# address, and the good request that is left is answered. test_edge.py and test_nouns.py do that.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)


# Test cases are made from the document while tests are collected, before there are fixtures.
_folder = tempfile.TemporaryDirectory(prefix="tm-openapi-")
atexit.register(_folder.cleanup)
_world = World(Path(_folder.name))
_world.versions.record_shipped("taximeter 1.0")
_world.mailbox.waiting += [record(0), unknown(1)]
raise_alerts(_world)
schema = schemathesis.openapi.from_asgi("/openapi.json", _world.app)


@schema.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_does_what_its_document_says(case: schemathesis.Case):
    """Requests made from the document, valid and not, get documented answers."""
    case.call_and_validate(headers=ADMIN, checks=list(CHECKS))
