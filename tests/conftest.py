"""Settings of the whole suite."""

from hypothesis import settings

settings.register_profile("proxy", deadline=None)  # the first example builds the validators, which takes its time
settings.load_profile("proxy")
