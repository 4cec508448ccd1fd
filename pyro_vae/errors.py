"""The errors that a user meets."""


class InputError(ValueError):
    """Input that cannot be used; its text is one line: what was expected, what was got, what to do.

    The command line prints that line and ends with status 2, without a traceback.
    """


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the text names the step, the site and where to go back to."""
