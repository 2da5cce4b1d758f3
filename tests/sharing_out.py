"""How a test run of several processes shares out the tests (`pytest -n 2`)."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Files that start Ray: one after the other in one process, since two clusters at once starve each other.
_ON_RAY = ("tests/ray/", "tests/house/test_wheel.py")


class ByFile(LoadScopeScheduling):
    """A file's tests stay together, with what the file's fixtures made, and files come in their order."""

    def __init__(self, config, log=None):
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid):
        return "on Ray" if nodeid.startswith(_ON_RAY) else nodeid.partition("::")[0]
