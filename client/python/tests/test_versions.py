"""What the package says of the versions that it runs on, as far as one of them can tell."""
import ast
import os
import re

from conftest import HERE

PACKAGE = os.path.dirname(HERE)


def sources():
    for folder, _, names in os.walk(PACKAGE):
        yield from (os.path.join(folder, name) for name in names if name.endswith(".py"))


def test_the_oldest_pythons_parser_takes_every_source():
    with open(os.path.join(PACKAGE, "pyproject.toml"), encoding="utf-8") as text:
        project = text.read()
    oldest = tuple(map(int, re.search(r'requires-python = ">=(\d+)\.(\d+)"', project).groups()))
    said = [tuple(map(int, one.split("."))) for one in re.findall(r"Python :: (3\.\d+)", project)]
    assert said[0] == oldest and said == [(3, minor) for minor in range(oldest[1], said[-1][1] + 1)]
    checked = 0
    for path in sources():
        with open(path, encoding="utf-8") as text:
            tree = ast.parse(text.read(), path, feature_version=oldest)
        # Annotations of newer kinds are no syntax: they are not evaluated where this is said.
        if os.sep + "expertd" + os.sep in path and any(isinstance(n, (ast.AnnAssign, ast.FunctionDef)) for n in ast.walk(tree)):
            assert any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body), path
        checked += 1
    assert checked > 60
    for newer in ("match x:\n    case 1: pass", "try: pass\nexcept* ValueError: pass"):
        try:
            ast.parse(newer, feature_version=oldest)
        except SyntaxError:
            continue
        raise AssertionError(f"the check would not find {newer!r}")
