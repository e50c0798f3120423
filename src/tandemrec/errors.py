"""The one exception that means: the user must change something, and the message says what."""


class InputError(ValueError):
    """Input that only its owner can mend: a file, a recipe key, a folder.

    The message is one sentence that names the place (file and line, column or key), what was found and what was
    expected. The command line prints it without a traceback and exits with code 2.
    """
