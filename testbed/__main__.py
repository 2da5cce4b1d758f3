"""``python -m testbed``. An interrupt that comes while the command line is still loading leaves no traceback."""

import sys


def main() -> None:
    try:
        from testbed.cli import main as command_line  # noqa: PLC0415 - what takes time, and may be interrupted
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
