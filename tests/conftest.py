"""Hypothesis without deadlines: a slow machine is no bug."""

from hypothesis import settings

settings.register_profile("no-deadline", parent=settings.default, deadline=None)
settings.load_profile("no-deadline")
