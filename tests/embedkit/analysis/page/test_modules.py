"""The bundle of the page's ES modules."""

import pytest

from embedkit.analysis.page.modules import bundle

MODULES = {
    "leaf": "export const ONE = 1;\nexport function two() { return 2; }\n",
    "branch": 'import { ONE } from "./leaf.js";\nexport class Sum {}\nexport async function later() { return ONE; }\n',
    "main": 'import { later, Sum } from "./branch.js";\nimport { two } from "./leaf.js";\nlater(Sum, two);\n',
    "unused": "export const never = 0;\n",
}


def test_imported_modules_come_first_and_once() -> None:
    assert bundle(MODULES, "main").split("\n") == [
        '"use strict";',
        "const modules = {};",
        "modules.leaf = (() => {",
        "const ONE = 1;",
        "function two() { return 2; }",
        "return { ONE, two };",
        "})();",
        "modules.branch = (() => {",
        "const { ONE } = modules.leaf;",
        "class Sum {}",
        "async function later() { return ONE; }",
        "return { Sum, later };",
        "})();",
        "modules.main = (() => {",
        "const { later, Sum } = modules.branch;",
        "const { two } = modules.leaf;",
        "later(Sum, two);",
        "return {  };",
        "})();",
        "",
    ]


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        (
            "leaf",
            'import { Sum } from "./branch.js";\nexport const ONE = 1;\n',
            "circle: main -> branch -> leaf -> branch",
        ),
        ("leaf", "export const one = 1, ONE = 2;\n", "branch.js imports ONE, which leaf.js has not"),
        ("main", 'import { a } from "./gone.js";\n', "main imports gone.js, which does not exist"),
        ("main", 'import * as leaf from "./leaf.js";\n', "not supported: import"),
        ("main", 'import {\n  ONE } from "./leaf.js";\n', "not supported: import"),
        ("main", "export default 1;\n", "not supported: export default"),
        ("main", "export let changes = 1;\n", "not supported: export let"),
        ("main", 'export { ONE } from "./leaf.js";\n', "not supported: export"),
    ],
)
def test_unsupported_modules_are_refused(module: str, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bundle(MODULES | {module: source}, "main")
