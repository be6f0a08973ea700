"""Groups of similar rows on up to three levels, with names from their words."""

from embedkit.analysis.groups.find import GroupOptions, Groups, find_groups, groups_frame
from embedkit.analysis.groups.name import GroupSummary, NamedGroups, NameOptions, name_groups, rename_groups

__all__ = [
    "GroupOptions",
    "GroupSummary",
    "Groups",
    "NameOptions",
    "NamedGroups",
    "find_groups",
    "groups_frame",
    "name_groups",
    "rename_groups",
]
