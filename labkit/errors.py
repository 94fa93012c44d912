"""The ways a command can end that are not a bug; each carries a message fit to be shown."""


class UsageError(Exception):
    """It cannot be done: the message says what was wrong and what to type (exit 2)."""


class RunFailed(Exception):
    """A run that had begun cannot go on: the message says at which step and why (exit 1)."""


class Interrupted(Exception):
    """The run was stopped from outside after its state was saved; it can be resumed (exit 130)."""


class ProbeDone(Exception):
    """`lab plan` has seen enough steps."""
