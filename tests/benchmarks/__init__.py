"""Measurements of Fr, run by ``make bench``: each a ratio or a bound, taken in one run on one machine."""
