"""How a command ends when it cannot do what it was asked for."""

BROKEN = 1
"""Exit status: something broke that should not."""

WRONG = 2
"""Exit status: bad usage, or an input that cannot be used."""


class CommandError(Exception):
    """Ends the command; the message tells a person what is wrong and what to do."""

    def __init__(self, message: str, status: int = WRONG) -> None:
        super().__init__(message)
        self.status = status
