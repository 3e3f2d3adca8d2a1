"""How true the numbers of the default analysis are: ``python -m tests.accuracy``, which writes docs/accuracy.md."""
