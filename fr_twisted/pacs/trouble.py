"""What goes wrong with files, in the log: an `OSError` without its path, which may name a patient."""

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure


def log_trouble(log: Logger, text: str, failure: Failure, event: str, **fields: Any) -> None:
    """Log that ``text`` happened, and why: of the system's errors the plain reason, of any other the traceback."""
    error = failure.value
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        log.error(text + ": {reason}", reason=reason, event=event, **fields)
    else:
        log.failure(text, failure, event=event, **fields)
