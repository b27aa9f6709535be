"""Settings that hold for every test."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Time is no fault on a machine that does other things too, and the first example pays for hypothesis' own tables.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# A shell ignores it for what it starts in the background, and so would every process of a test that is ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
