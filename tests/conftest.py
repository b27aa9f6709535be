"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time is no fault on a machine that does other things too, and the first example pays for hypothesis' own tables.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
