"""The one exception for what a user can mend."""


class HeedfulError(Exception):
    """Says in one line what was given, what was expected and what to do.

    The command line prints it without a traceback and ends with status 2; a traceback is a bug of ours.
    """
