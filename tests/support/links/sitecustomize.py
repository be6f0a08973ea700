"""On PYTHONPATH, this makes link(2) fail below a folder as file systems make it fail, as EMBEDKIT_TEST_LINKS says.

It is JSON: `folder`; `error`, a name such as EPERM; `made`, whether the link is made all the same, as by an NFS server
whose answer is lost; `rename`, whether renaming without replacing is refused, too.
"""

import errno
import json
import os
from pathlib import Path
from typing import Any

settings = json.loads(os.environ.get("EMBEDKIT_TEST_LINKS", "null"))

if settings:
    import embedkit.storage.exclusive as exclusive

    honest = os.link
    number = getattr(errno, settings["error"])

    def link(source: Any, target: Any) -> None:
        if not Path(target).is_relative_to(settings["folder"]):
            return honest(source, target)
        if settings["made"]:
            honest(source, target)
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(target))

    os.link = link
    if settings.get("rename"):
        exclusive._rename_without_replacing = rename
