"""What a user is told when something is wrong: one message, one exit code."""


class SplatError(Exception):
    """A problem with a message meant for the user; `exit_code` is what the program returns."""

    exit_code = 1


class UsageError(SplatError):
    """What was asked for is wrong or impossible: a bad key, value, prompt or file."""

    exit_code = 2


class EnvironmentProblem(SplatError):
    """What was asked for is right, but this machine cannot do it now: disk, network, GPU, build."""

    exit_code = 3
