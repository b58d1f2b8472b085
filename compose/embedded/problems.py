"""The errors of running the system here that a person can act on, each said in one line.

Anything that is not one of these is a defect and keeps its traceback.
"""

import errno


class RuntimeProblem(Exception):
    """Why something could not be started or stopped, and what to do about it."""


class Interrupted(Exception):
    """A signal came while something was still being started."""


def of_system(error: OSError, doing: str) -> RuntimeProblem:
    """The one line for what the operating system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RuntimeProblem(f"The disk is full: {doing} needs more room.")
    where = f" ({error.filename})" if error.filename else ""
    return RuntimeProblem(f"{error.strerror or error}{where}: {doing} failed.")
