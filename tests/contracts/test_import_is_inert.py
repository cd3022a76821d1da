"""Importing a package does nothing but import: no process, no thread, no socket, no file, no look at the environment.

Each import runs in a fresh interpreter under an audit hook. What the third-party packages do while they are imported
is their own affair, so an event counts only if the code that caused it is ours: the nearest frame below the import
system and the standard library that belongs to one of our packages, with no foreign package in between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

WATCHER = r"""
import json, os, sys, threading

package = sys.argv[1]
PACKAGES = ("localllama", "langchain_localllama", "llamaindex_localllama")
events = []
is_watching = True

def cause():
    # The first frame that is neither the import system, nor this file, nor the standard library.
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        root = name.partition(".")[0]
        if root in PACKAGES:
            return name
        if root not in sys.stdlib_module_names and root != "__main__":
            return None
        if root == "importlib" or "importlib" in frame.f_code.co_filename:
            return None  # the import system opens the module's own file
        frame = frame.f_back
    return None

WATCHED = ("open", "os.", "subprocess.", "socket.", "_thread.start", "ctypes.", "shutil.", "tempfile.", "sqlite3.", "urllib.")

def hook(event, arguments):
    global is_watching
    if is_watching and event.startswith(WATCHED):
        is_watching = False
        try:
            name = cause()
            if name:
                events.append([event, name, repr(arguments)[:200]])
        finally:
            is_watching = True

class WatchedEnviron(type(os.environ)):
    def __getitem__(self, key):
        note(key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        note(key)
        return super().get(key, default)
    def __contains__(self, key):
        note(key)
        return super().__contains__(key)
    def __iter__(self):
        note("all of it")
        return super().__iter__()

def note(key):
    name = cause()
    if name:
        events.append(["environ", name, str(key)])

os.environ.__class__ = WatchedEnviron
threads_before = threading.active_count()
sys.addaudithook(hook)
__import__(package)
is_watching = False
modules = sorted(name for name in sys.modules)
print(json.dumps({
    "events": events,
    "modules": modules,
    "new_threads": threading.active_count() - threads_before,
    "children": open(f"/proc/self/task/{os.getpid()}/children").read().split() if sys.platform == "linux" else [],
}))
"""

COSTLY = {
    "httpx",
    "httpcore",
    "tenacity",
    "psutil",
    "filelock",
    "huggingface_hub",
    "xllamacpp",
    "gguf",
    "numpy",
}
"""Not one of these may be loaded by `import localllama`. (The frameworks load some of them by themselves.)"""


def _watch(package: str, environ: dict[str, str] | None = None) -> dict[str, list[str]]:
    answer = subprocess.run(
        [sys.executable, "-c", WATCHER, package],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **(environ or {})},
    )
    assert answer.returncode == 0, answer.stderr
    result: dict[str, list[str]] = json.loads(answer.stdout)
    return result


@pytest.mark.parametrize("package", ["localllama", "langchain_localllama", "llamaindex_localllama"])
def test_import_does_nothing_else(package: str) -> None:
    seen = _watch(package)
    assert seen["events"] == []
    assert seen["children"] == []
    assert not seen["new_threads"]


def test_import_of_the_core_loads_nothing_costly() -> None:
    assert COSTLY & set(_watch("localllama")["modules"]) == set()


@pytest.mark.parametrize("package", ["localllama", "langchain_localllama", "llamaindex_localllama"])
def test_import_loads_no_private_package_of_the_core_that_starts_things(package: str) -> None:
    loaded = {name for name in _watch(package)["modules"] if name.startswith("localllama._")}
    assert not any(name.startswith(("localllama._processes.process", "localllama._transports.http")) for name in loaded)


@pytest.mark.parametrize("package", ["localllama", "langchain_localllama", "llamaindex_localllama"])
def test_import_survives_a_hostile_environment(package: str) -> None:
    hostile = {
        "LOCALLLAMA_RUNTIME": "/does/not/exist",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "HOME": "/does/not/exist",
        "TMPDIR": "/does/not/exist",
    }
    assert _watch(package, hostile)["events"] == []


def test_the_watcher_sees_what_it_must_not_see(tmp_path) -> None:
    """The proof that the tests above can fail: a package of that name that does all of it."""
    (tmp_path / "localllama.py").write_text(
        "import os, socket, subprocess, sys, threading\n"
        "os.environ.get('HOME')\n"
        "open(__file__).close()\n"
        "socket.socket().close()\n"
        "threading.Thread(target=lambda: None).start()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "child.communicate()\n"
    )
    seen = _watch("localllama", {"PYTHONPATH": str(tmp_path)})
    kinds = {event[0] for event in seen["events"]}
    assert {"environ", "open", "socket.__new__", "subprocess.Popen"} <= kinds
    assert any(kind.startswith("_thread.start") for kind in kinds) or sys.version_info < (3, 12)
