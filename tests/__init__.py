"""Tests of Fr."""

from hypothesis import HealthCheck, settings

# A busy machine makes examples slow, which says nothing about what is tested.
settings.register_profile("fr", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("fr")
