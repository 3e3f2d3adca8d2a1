"""Tests with the real reactor, a real store and real processes."""
