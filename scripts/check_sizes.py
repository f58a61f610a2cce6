"""Size budgets: files of at most 400 lines (tests 600), functions of at most 50.

A line may be over the budget with a reason: `# size: why` on the first line of the file or on
the `def`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 50
FOLDERS = ("src", "tests", "scripts", "benchmarks")
EXCUSE = "# size:"


def problems(path: Path) -> Iterator[str]:
    """A sentence for each budget that the file breaks."""
    lines = path.read_text().splitlines()
    allowed = TEST_FILE_LINES_MAX if path.parts[0] == "tests" else FILE_LINES_MAX
    if len(lines) > allowed and EXCUSE not in lines[0]:
        yield f"{path}: {len(lines)} lines, at most {allowed}"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > FUNCTION_LINES_MAX and EXCUSE not in lines[node.lineno - 1]:
                yield f"{path}:{node.lineno}: {node.name} has {size} lines, at most 50"


def main() -> int:
    """Print what is over; 1 if anything is."""
    files = sorted(path for folder in FOLDERS for path in Path(folder).rglob("*.py"))
    found = [
        problem
        for path in files
        if not path.is_relative_to("src/inferd/storage/migrations/versions")
        for problem in problems(path)
    ]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
