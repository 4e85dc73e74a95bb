"""Optional dependencies, imported where they are used."""

from importlib import import_module


def import_optional(module, *, caller, extra):
    """Import an optional dependency, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name of the module.
    caller : str
        What needs it, for the message.
    extra : str
        The extra of this package that installs it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(
            f"{caller} needs {name}, which is not installed. "
            f'Run: pip install "masktune_sk[{extra}]"'
        ) from error
