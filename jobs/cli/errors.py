"""How a command ends when it is interrupted, or when the machine fails under it."""

from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.errors import DiskDiffers, EmbedkitError, Interrupted, LockLost
from embedkit.run import RunFolder
from jobs.os_errors import describe_os_error


@contextmanager
def with_resume_hint(folder: RunFolder) -> Iterator[None]:
    """Add the command that continues the run to an interrupt and to errors of the operating system or of the disk.

    Raises:
        Interrupted: on Ctrl-C.
        EmbedkitError: the disk is full, a file cannot be written, and the like.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; finished work is kept. To continue: {folder.resume_command}") from None
    except (DiskDiffers, LockLost) as error:
        raise EmbedkitError(f"{error}\nto continue: {folder.resume_command}") from None
    except EmbedkitError:
        raise
    except Exception as error:
        described = describe_os_error(error, folder.path)
        if described is None:
            raise
        raise EmbedkitError(f"{described}\nto continue: {folder.resume_command}") from error
