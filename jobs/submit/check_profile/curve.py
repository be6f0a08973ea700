"""Check that the curve of a GPU that a profile names can be read."""

from collections.abc import Iterator

from embedkit.errors import UsageError
from embedkit.forecast import read_curve
from jobs.profiles import Profile
from jobs.submit.check_profile.finding import Finding, ok, refused


def check_curve(profile: Profile) -> Iterator[Finding]:
    """Say of which GPU the curve is, or why it cannot be read. Nothing for a profile without one."""
    if profile.curve is None:
        return
    requested = str(profile.stages["embed"].curve)
    try:
        curve = read_curve(profile.curve, "curve")
    except UsageError as error:
        yield refused("curve", requested=requested, actual=str(error))
    else:
        engine = curve.engine
        actual = f"that of {curve.gpu}, measured with {engine.engine} {engine.engine_version} and {curve.model}"
        yield ok("curve", requested=requested, actual=actual)
