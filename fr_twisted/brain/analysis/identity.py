"""The name and version of the analysis."""

NAME = "t1-volumes"

VERSION = "2.2"
"""Changes whenever findings may change, even in the last digit: reports of one scan are told apart by it."""
