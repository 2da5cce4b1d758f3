"""The source tree keeps its own rules: sizes, empty package files, nothing that ties it to one machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
# An absolute path into somebody's machine, as opposed to a path inside a URL or relative to the checkout.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:work|root|tmp|home|opt|Users|mnt)/")
PACKAGE_HOST = re.compile(rb"(?:pypi\.|pythonhosted\.|download\.pytorch\.|index-url|find-links|trusted-host)", re.I)
BINARY = {".safetensors", ".parquet", ".png"}


def tracked(repo_root: Path, *patterns: str) -> list[Path]:
    if shutil.which("git") is None or not (repo_root / ".git").exists():
        pytest.skip("needs a git checkout to tell which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=repo_root, capture_output=True, check=True
    ).stdout.split(b"\0")
    paths = [repo_root / name.decode() for name in listed if name]
    return [path for path in paths if path.is_file() and path.name != Path(__file__).name]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("pattern", [MACHINE_PATH, PACKAGE_HOST], ids=["machine-path", "package-host"])
def test_no_tracked_file_names_a_machine(pattern: re.Pattern[bytes], repo_root: Path) -> None:
    found = [
        f"{path.relative_to(repo_root)}:{number}: {line.strip().decode(errors='replace')}"
        for path in tracked(repo_root)
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_patterns_tell_machine_paths_from_urls_and_relative_paths() -> None:
    folder, index = b"work", b"py" + b"pi.org"
    assert MACHINE_PATH.search(b"open('/" + folder + b"/main/x')")
    assert not MACHINE_PATH.search(
        b"https://example.org/" + folder + b"/x and ./" + folder + b"/x and a/" + folder + b"/"
    )
    assert PACKAGE_HOST.search(b"see https://" + index + b"/simple")


def test_no_source_file_is_too_long(repo_root: Path) -> None:
    lines = {
        str(path.relative_to(repo_root)): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked(repo_root, "*.py", ":!tests/")
    }
    assert lines
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_no_function_of_the_package_is_too_long(repo_root: Path) -> None:
    found = [
        f"{path.relative_to(repo_root)}: {name} has {count} lines"
        for path in tracked(repo_root, "testbed/*.py")
        for name, count in functions(path)
        if count > MAX_FUNCTION_LINES
    ]
    assert found == []


def test_package_files_are_empty(repo_root: Path) -> None:
    inits = [path for path in tracked(repo_root, "testbed/*/__init__.py") if path.read_text(encoding="utf-8").strip()]
    assert inits == []
