"""Imported by a fork server alone: loads tokenizers for the processes that are forked from it.

A server that cannot, or in which a library has started threads, ends at once: its client then starts processes without
it (`embedkit/prepare/fork_server.py`).
"""

import json
import os

from embedkit import preloaded

try:
    preloaded.load(**json.loads(os.environ[preloaded.VARIABLE]))
except BaseException:  # also a panic of a library; who loads the tokenizers without a fork sees the error
    os._exit(1)
if not preloaded.becomes_alone():
    os._exit(1)
