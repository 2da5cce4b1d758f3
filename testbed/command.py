"""What every command line file shares: how a command is registered, and what becomes of its errors."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from testbed.core.errors import TestbedError

INTERRUPTED = 130  # exit code: 128 + SIGINT

# transformers imports torchao where it is installed, as it is for the tests; both then talk about CUDA parts of it.
_TALKATIVE = ("torchao", "torch.utils._pytree")

CommandT = TypeVar("CommandT", bound=Callable[..., None])


def new_app(name: str, text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def command_of(app: typer.Typer) -> Callable[[CommandT], CommandT]:
    """Registers a command whose expected errors are one line on stderr and an exit code, never a traceback."""

    def register(function: CommandT) -> CommandT:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            quiet_libraries()
            try:
                function(*args, **kwargs)
            except TestbedError as error:
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from None

        app.command(function.__name__.rstrip("_").replace("_", "-"))(guarded)
        return function

    return register


def quiet_libraries() -> None:
    """Leave out what libraries log about what is none of the user's business."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
