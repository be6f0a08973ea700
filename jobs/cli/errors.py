"""How a command ends when it is interrupted, or when the machine fails under it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from embedkit.errors import DiskDiffers, EmbedkitError, Interrupted, LockLost
from embedkit.run import RunFolder
from jobs.os_errors import describe_os_error


def with_resume_hint(folder: RunFolder) -> AbstractContextManager[None]:
    """As `with_hint`, of a command that `--resume` continues."""
    return with_hint(folder, folder.resume_command)


@contextmanager
def with_hint(folder: RunFolder, command: str, option: str = "--output-dir") -> Iterator[None]:
    """Add the command that continues to an interrupt and to errors of the operating system or of the disk.

    option: the one that chooses another folder.

    Raises:
        Interrupted: on Ctrl-C.
        EmbedkitError: the disk is full, a file cannot be written, and the like.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; finished work is kept. To continue: {command}") from None
    except (DiskDiffers, LockLost) as error:
        raise EmbedkitError(f"{error}\nto continue: {command}") from None
    except EmbedkitError:
        raise
    except Exception as error:
        described = describe_os_error(error, folder.path, option)
        if described is None:
            raise
        raise EmbedkitError(f"{described}\nto continue: {command}") from error
