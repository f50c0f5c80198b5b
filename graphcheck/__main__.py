"""``python -m graphcheck``, and the command: the process that watches over it imports no more than that takes."""

import sys

from graphcheck import processes


def main() -> int:
    """Run the command line of this process, whose whole work it is, in a child: Python ends at once with the exit code."""
    tell = processes.ends_at_once()
    if (code := processes.supervised(_left)) is None:
        processes.keep_objects()
        from graphcheck import cli

        code = cli.main(sys.argv[1:])
    return tell(code)


def _left(target: str, text: str) -> None:
    from graphcheck import cli

    cli.left(target, text)


if __name__ == "__main__":
    sys.exit(main())
