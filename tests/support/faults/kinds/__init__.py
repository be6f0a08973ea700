"""The kinds of cases. Each has a function that plays one case."""

from collections.abc import Callable

from tests.support.faults.case import Case
from tests.support.faults.kinds.at_rest import damage_at_rest
from tests.support.faults.kinds.attempts import three_attempts
from tests.support.faults.kinds.errnos import failing_step
from tests.support.faults.kinds.in_flight import damage_in_flight
from tests.support.faults.kinds.kills import kill
from tests.support.faults.kinds.namespaces import two_namespaces

KINDS: dict[str, Callable[[Case], None]] = {
    "kill": kill,
    "rest": damage_at_rest,
    "flight": damage_in_flight,
    "errno": failing_step,
    "attempts": three_attempts,
    "namespace": two_namespaces,
}
