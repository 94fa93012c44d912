"""The ways a command can end that are not a bug; each carries a message fit to be shown."""

import errno

_ADVICE = {
    "Free some space there, then type the command again.": (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
    ),
    "Set LAB_HOME (or LAB_WORKSPACE, for exercises) to a folder that you can write to.": (
        errno.EACCES, errno.EPERM, errno.EROFS,
    ),
    "Something of another kind has that name; move it away.": (
        errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    ),
    "Choose a shorter path.": (errno.ENAMETOOLONG,),
    "The disk or the connection to it is at fault; look at that first.": (
        errno.EIO, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT,
    ),
    "Too many files are open; see `ulimit -n`.": (errno.EMFILE, errno.ENFILE),
}  # fmt: skip
"""What to do about errors of the file system that no code can prevent."""


def advice(error: OSError) -> str | None:
    """The error in words with what to do about it; None when it may be a bug of the lab."""
    for text, codes in _ADVICE.items():
        if error.errno in codes:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror}. {text}"
    return None


class UsageError(Exception):
    """It cannot be done: the message says what was wrong and what to type (exit 2)."""


class RunFailed(Exception):
    """A run that had begun cannot continue: the message says at which step and why (exit 1)."""


class Interrupted(Exception):
    """The run was stopped from outside after its state was saved; it can be resumed (exit 130)."""


class ProbeDone(Exception):
    """`lab plan` has seen enough steps."""
