"""What every test shares: how long hypothesis looks for a counter-example.

Must never hold a fixture that only one folder uses.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings

# Deadlines are off because a busy machine is not a bug. On the build machine examples are derived
# from the test itself, so that a red run can be repeated; `HYPOTHESIS_PROFILE=long` searches wide.
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=60, **_COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, print_blob=True, **_COMMON)
settings.register_profile("long", max_examples=3000, **_COMMON)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)
