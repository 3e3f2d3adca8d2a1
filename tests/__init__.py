"""Tests of Fr."""
