"""The errors a user can act on: each says in one line what is wrong, where, and the way out."""


class DacError(Exception):
    """An error whose text is one line for the user; the command line prints it without a traceback.

    File names may hold line breaks or bytes that are not UTF-8, so the text is made printable here.
    """

    def __init__(self, message: str) -> None:
        one_line = " ".join(message.splitlines())
        super().__init__(one_line.encode("utf-8", "backslashreplace").decode("utf-8"))


class AudioError(DacError):
    """A recording that cannot be read or captioned."""


class ConfigError(DacError):
    """A configuration file or override with an unknown key or a value of the wrong type."""


class CheckpointError(DacError):
    """A checkpoint folder that is missing, incomplete, damaged or of another kind."""


class DataError(DacError):
    """A dataset folder or file that does not have the documented layout."""


class MissingExtraError(DacError):
    """An optional library that is not installed; the text names the extra that brings it."""
