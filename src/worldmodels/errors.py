"""Errors for the person who can act on them: what was wrong, where, what is allowed, what to do."""


class WorldModelsError(Exception):
    """Base of every error that the command line shows as one message instead of a traceback."""

    exit_code = 1


class ParamsError(WorldModelsError):
    """A value in params.yaml, or an argument of a command, that cannot be used."""

    exit_code = 2


class ArtifactError(WorldModelsError):
    """An artifact that is missing, truncated, or not what its manifest says."""


class EnvironmentFault(WorldModelsError):
    """A game that does not behave: it will not start, died, or gives black frames."""
