"""Tests without a network: fakes, in-memory transports, a Clock."""
