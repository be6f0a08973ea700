"""Check the account, the QOS, the wckey and the reservation of a profile."""

import re
from collections.abc import Iterator

from jobs.profiles import Resources
from jobs.slurm import Site, listed
from jobs.submit.account_limits import account_of, associations_of
from jobs.submit.check_profile.finding import Finding, note, ok, refused, warning
from jobs.submit.check_profile.wording import known_names

PLACEHOLDER = re.compile(r"\bmy(project|lab)\b")
"""What shipped profiles have in place of an account."""
IS_PLACEHOLDER = "this is the shipped profile's placeholder, and you have an account of your own"


def check_account(resources: Resources, site: Site) -> Iterator[Finding]:
    """Check that the user belongs to the account."""
    requested = f'"{resources.account}"' if resources.account else "none"
    is_placeholder = bool(PLACEHOLDER.search(resources.account or ""))
    if site.associations is None and is_placeholder:
        yield warning("account", requested=requested, actual=IS_PLACEHOLDER, key="account", fix="your own")
        return
    if site.associations is None:
        actual = "there is no accounting that requires one, or it does not answer"
        yield ok("account", requested=requested, actual=actual)
        return
    own = sorted({row.get("Account", "") for row in site.associations if row.get("User") == site.user})
    account = account_of(resources, site)
    level = refused if "associations" in site.enforced else warning
    if not account:
        actual = f"{site.user} has no default account"
        yield level("account", requested=requested, actual=actual, key="account", fix=f"one of {listed(own)}")
    elif account not in own:
        known = {row.get("Account", "") for row in site.associations}
        actual = f"{site.user} does not belong to it" if account in known else "there is no such account"
        actual = IS_PLACEHOLDER if is_placeholder else actual
        fix = f"one of {listed(own)}" if own else "ask for access to one"
        yield level("account", requested=f'"{account}"', actual=actual, key="account", fix=fix)
    else:
        yield ok("account", requested=requested, actual=f"{site.user} belongs to {account}")


def check_qos(resources: Resources, site: Site) -> Iterator[Finding]:
    """Check that a requested QOS exists and that the account may use it."""
    if not resources.qos or site.qos is None or site.associations is None:
        return
    requested = f'"{resources.qos}"'
    known = sorted({row.get("Name", "") for row in site.qos})
    own = associations_of(resources, site)[:1]
    allowed = {name for row in own for name in row.get("QOS", "").split(",") if name}
    if resources.qos not in known:
        fix = known_names(resources.qos, known)
        yield refused("qos", requested=requested, actual="there is no such QOS", key="qos", fix=fix)
    elif allowed and resources.qos not in {name.lstrip("+-") for name in allowed}:
        actual = f"account {account_of(resources, site)} may not use it"
        yield refused("qos", requested=requested, actual=actual, key="qos", fix=f"one of {listed(allowed)}")
    else:
        yield ok("qos", requested=requested, actual="it may be used")


def check_wckey(resources: Resources, site: Site) -> Iterator[Finding]:
    """Check the wckey against the user's, where the cluster tracks or requires one."""
    tracked = site.settings.get("TrackWCKey", "").lower() in ("yes", "1")
    enforced = "wckeys" in site.enforced
    requested = f'"{resources.wckey}"'
    if resources.wckey and site.wckeys is not None and tracked and resources.wckey not in site.wckeys:
        level = refused if enforced else warning
        fix = known_names(resources.wckey, site.wckeys)
        yield level("wckey", requested=requested, actual=f"{site.user} has no such wckey", key="wckey", fix=fix)
    elif resources.wckey and not tracked:
        actual = "this cluster does not track wckeys (TrackWCKey)"
        yield note("wckey", requested=requested, actual=actual, key="wckey", fix="leave it out")
    elif enforced and not resources.wckey:
        actual = "this cluster requires one (AccountingStorageEnforce)"
        yield warning("wckey", requested="none", actual=actual, key="wckey", fix="set yours")


def check_reservation(resources: Resources, site: Site) -> Iterator[Finding]:
    """Check that a requested reservation exists."""
    if not resources.reservation or site.reservations is None:
        return
    requested = f'"{resources.reservation}"'
    unknown = [name for name in resources.reservation.split(",") if name not in site.reservations]
    if not unknown:
        yield ok("reservation", requested=requested, actual="it exists")
    else:
        fix = known_names(unknown[0], site.reservations)
        actual = "there is no reservation of this name"
        yield refused("reservation", requested=requested, actual=actual, key="reservation", fix=fix)
