"""What holds for every test: no deadlines for hypothesis, and interrupts that arrive."""

import signal

from hypothesis import settings

# A slow machine is no bug.
settings.register_profile("no-deadline", parent=settings.default, deadline=None)
settings.load_profile("no-deadline")

# A shell that starts the tests in the background lets them, and so their children, ignore SIGINT: a
# test that interrupts a command would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
