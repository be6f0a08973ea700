"""Errors of the Hub: which ones are retried, and the messages for the others.

huggingface_hub raises its own errors, or those of the HTTP client below it, often wrapped in each other. Functions here
look at the whole chain of causes.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from embedkit.errors import EmbedkitError, UsageError
from embedkit.storage import DISK_FULL

log = logging.getLogger(__name__)

Kind = Literal["dataset", "model"]
T = TypeVar("T")

WAITS = (1, 2, 4, 8)
"""Seconds to wait before each further try, unless the Hub's answer names a time."""
TEMPORARY_STATUS = {408, 429, 500, 502, 503, 504}


class DamagedFile(OSError):
    """A file has not the size or the bytes that the Hub lists, or the Hub lists others than were pushed."""


@dataclass(frozen=True)
class Patience:
    """How long a call waits. longest: seconds that the Hub may request, beyond which the call fails.

    busy: seconds to wait before each further try if the Hub says 429 and names no time. after_cuts: also call again if
    the connection ends without an answer, for calls that huggingface_hub makes only once.
    """

    longest: int = 600
    busy: tuple[int, ...] = WAITS
    after_cuts: bool = False


FETCH = Patience()


def call_with_retries(what: str, call: Callable[[], T], patience: Patience = FETCH) -> T:
    """Call, and call again a few times while the Hub is busy or failing or a file arrives damaged.

    Waits between the tries as long as the Hub requests, if that is not too long. `what` names the call in the log.
    """
    for tried, (pause, busy) in enumerate(zip(WAITS, patience.busy, strict=True), 1):
        try:
            return call()
        except Exception as error:
            reason = _temporary_reason(error) or (_lost_reason(error) if patience.after_cuts else None)
            wait = _requested_wait(error) or (busy if _status(error) == 429 else pause)
            if reason is None or wait > patience.longest:
                raise
            log.warning("%s: %s; trying again in %d s (%d of %d)", what, reason, wait, tried, len(WAITS))
            time.sleep(wait)
    return call()


def _temporary_reason(error: BaseException) -> str | None:
    """Why a later try may succeed, in words; None if it will not."""
    status = _status(error)
    if status in TEMPORARY_STATUS:
        return f"the Hub answers {status}"
    for cause in _causes(error):
        if isinstance(cause, DamagedFile) or (type(cause) is OSError and cause.errno is None):  # a wrong size
            return str(cause).splitlines()[0]
    return None


def _lost_reason(error: BaseException) -> str | None:
    """Why there was no answer, in words; None if there was one."""
    for cause in _causes(error):
        if isinstance(cause, json.JSONDecodeError):  # a page of a proxy, which huggingface_hub decodes unseen
            return f"the Hub's answer is no JSON ({cause})"
        # huggingface_hub has its HTTP client from httpx or httpx2, by its version.
        if any(kind.__name__ == "TransportError" for kind in type(cause).__mro__):
            return str(cause) or type(cause).__name__
    return None


def _requested_wait(error: BaseException) -> int | None:
    """Seconds to wait that the Hub's answer requests; None if it requests none."""
    from huggingface_hub.utils import parse_ratelimit_headers

    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None:
            after = str(headers.get("Retry-After", ""))
            limit = parse_ratelimit_headers(headers)
            if after.isdigit():
                return int(after)
            return limit.reset_in_seconds if limit is not None and limit.remaining == 0 else None
    return None


def _status(error: BaseException) -> int | None:
    """HTTP status of the answer behind an error of huggingface_hub; None if there was no answer."""
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return int(status)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and everything that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def explain_hub_errors(name: str, kind: Kind, revision: str | None) -> Iterator[None]:
    """In the block, replace each error of huggingface_hub by one that says what to do."""
    try:
        yield
    except EmbedkitError:
        raise
    except Exception as error:
        raise _explained(error, name, kind, revision) from error


def _explained(error: Exception, name: str, kind: Kind, revision: str | None) -> EmbedkitError:
    """The error for a person: the cause that a person can act on, most specific first."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes, status, hub = list(_causes(error)), _status(error), constants.ENDPOINT

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    page = f"{hub}/{'datasets/' if kind == 'dataset' else ''}{name}"
    failed = f"{kind} {name}{f' at {revision}' if revision else ''} cannot be fetched from the Hub"
    if is_any(GatedRepoError) or status == 403:
        return EmbedkitError(f"{failed}: its owner must grant access. Request it at {page}, then {_token()}")
    if is_any(RevisionNotFoundError):
        option = "--revision" if kind == "dataset" else "--model-revision"
        return UsageError(f"{option} {revision}: no such commit, tag or branch in {kind} {name}; see {page}")
    if is_any(RepositoryNotFoundError) or status in (401, 404):
        return UsageError(
            f"{failed}: {hub} has no such {kind}, or it is private. There is no local file of that name either. "
            f"If the name is right, {_token()}"
        )
    if any(isinstance(cause, OSError) and cause.errno in DISK_FULL for cause in causes):
        return EmbedkitError(
            f"{failed}: the disk is full at {constants.HF_HUB_CACHE}. Make room, or set HF_HOME to a folder on a "
            "larger disk, and run the same command again; complete files are kept"
        )
    if is_any(OfflineModeIsEnabled):
        return EmbedkitError(
            f"{failed}: HF_HUB_OFFLINE is set, and not all of it is in {constants.HF_HUB_CACHE}. Run "
            "`embedkit fetch` with the same options on a machine that can reach the Hub"
        )
    if status is not None:
        wait = _requested_wait(error)
        later = f"in {wait:,} s" if wait else "later"
        return EmbedkitError(
            f"{failed}: {hub} still answers {status}. Run the same command again {later}; complete files are kept"
        )
    return EmbedkitError(f"{failed} ({hub}): {_reason(error)}. Run the same command again; complete files are kept")


def _reason(error: Exception) -> str:
    """The first words of the first cause."""
    lines = [line for cause in reversed([*_causes(error)]) for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def require_push_token(name: str) -> None:
    """Raise EmbedkitError if no token is set. name: of the repository that is to be pushed to."""
    from huggingface_hub import constants, get_token

    if get_token() is None:
        raise EmbedkitError(
            f"hub:{name}: no token of the Hub is set; make one that may write at {constants.ENDPOINT}/settings/tokens, "
            "and set HF_TOKEN to it (`hf auth login` stores one)"
        )


@contextmanager
def explain_push_errors(name: str) -> Iterator[None]:
    """In the block, replace each error of huggingface_hub by one that says what to do. name: of the repository."""
    try:
        yield
    except EmbedkitError:
        raise
    except Exception as error:
        raise _explained_push(error, name) from error


def _explained_push(error: Exception, name: str) -> EmbedkitError:
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled, RevisionNotFoundError

    status, hub = _status(error), constants.ENDPOINT
    token = f"set HF_TOKEN to one that may, of {hub}/settings/tokens"
    again = "Type the same command again; what was pushed is kept"
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in _causes(error)):
        return EmbedkitError(f"hub:{name}: HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    if any(isinstance(cause, RevisionNotFoundError) for cause in _causes(error)):
        return EmbedkitError(f"hub:{name}: the branch of this export was deleted meanwhile. {again}")
    if status is None:
        return EmbedkitError(f"hub:{name}: not pushed to {hub}: {_reason(error)}. {again}")
    if status == 401:
        return EmbedkitError(f"hub:{name}: {hub} does not accept the token (401); {token}")
    if status == 403:
        return EmbedkitError(f"hub:{name}: {hub} does not let the token write there (403{_said(error)}); {token}")
    if status == 404:
        return EmbedkitError(
            f"hub:{name}: {hub} has no such data set, or does not show it to the token (404{_said(error)}); {token}"
        )
    if status in (409, 412):
        return EmbedkitError(f"hub:{name}: somebody else changed it meanwhile ({status}{_said(error)}). {again}")
    if status not in TEMPORARY_STATUS:
        return EmbedkitError(f"hub:{name}: {hub} refuses this ({status}{_said(error)})")
    wait = _requested_wait(error)
    again = again.replace("again;", f"again in {wait:,} s;" if wait else "again later;")
    return EmbedkitError(f"hub:{name}: {hub} still answers {status}{_said(error)}. {again}")


def _said(error: Exception) -> str:
    """What the Hub's answer says, as the end of a parenthesis; empty if it says nothing."""
    said = next((found for cause in _causes(error) if (found := getattr(cause, "server_message", None))), None)
    return f": {' '.join(str(said).split())}" if said else ""


def _token() -> str:
    """What to do about access, as the end of a sentence."""
    from huggingface_hub import get_token

    if get_token() is None:
        return "set HF_TOKEN to a token of an account that has access (none is set; `hf auth login` stores one)"
    return "set HF_TOKEN to a token of an account that has access (the one that is set has none)"
