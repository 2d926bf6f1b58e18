"""How a command ends badly: a sentence on standard error and a status.

CommandFailed        1: the answer is bad
└── WrongUse         2: the command was called in a way that makes no sense
"""


class CommandFailed(Exception):
    """The message is for a person: what is wrong, and what to do."""

    status = 1


class WrongUse(CommandFailed):
    status = 2
