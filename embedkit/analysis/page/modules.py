"""The page's ES modules as one classic script.

A page that is opened from disk cannot import modules, and a module script would start only after the whole file is
read. So each module becomes a function that returns its exports, in an order in which every import is there.
"""

import re
from collections.abc import Mapping

IMPORT = re.compile(r'^import \{ (?P<names>[\w, ]+) \} from "\./(?P<module>\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?P<kind>(?:async )?function|class|const) (?P<name>\w+)", re.MULTILINE)
UNSUPPORTED = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


def bundle(sources: Mapping[str, str], entry: str) -> str:
    """Bundle a module and all that it imports. The script's one global is `modules`, the exports by module.

    Args:
        sources: text of each module by its name, `map` for `map.js`. Imports and exports have one form each:
            `import { a, b } from "./map.js";` and `export` before a function, a class or a const with one name.
        entry: name of the module to start with.

    Raises:
        ValueError: if an import or export has another form, a name is not exported, or modules import in a circle.
    """
    order: list[str] = []
    _add_with_imports(sources, entry, (), order)
    return "\n".join(['"use strict";', "const modules = {};", *(_as_function(sources, name) for name in order)]) + "\n"


def _add_with_imports(sources: Mapping[str, str], name: str, importers: tuple[str, ...], order: list[str]) -> None:
    if name in importers:
        raise ValueError(f"modules import in a circle: {' -> '.join([*importers, name])}")
    if name in order:
        return
    if name not in sources:
        raise ValueError(f"{importers[-1] if importers else 'the page'} imports {name}.js, which does not exist")
    for match in IMPORT.finditer(sources[name]):
        _add_with_imports(sources, match["module"], (*importers, name), order)
    order.append(name)


def _as_function(sources: Mapping[str, str], name: str) -> str:
    source = sources[name]
    for match in IMPORT.finditer(source):
        missing = set(match["names"].split(", ")) - set(_exports(sources[match["module"]]))
        if missing:
            raise ValueError(f"{name}.js imports {', '.join(sorted(missing))}, which {match['module']}.js has not")
    body = EXPORT.sub(r"\g<kind> \g<name>", IMPORT.sub(r"const { \g<names> } = modules.\g<module>;", source))
    if found := UNSUPPORTED.search(body):
        raise ValueError(f"{name}.js: this form of import or export is not supported: {found[0]}")
    return f"modules.{name} = (() => {{\n{body}return {{ {', '.join(_exports(source))} }};\n}})();"


def _exports(source: str) -> list[str]:
    return [match["name"] for match in EXPORT.finditer(source)]
