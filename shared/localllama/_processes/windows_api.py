"""The few functions of kernel32 that `launch_windows` needs. Unverified on this platform: read, not run there.

One class, so that tests can put another in its place.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ctypes import wintypes
from typing import Any

_CREATE_NEW_PROCESS_GROUP = 0x00000200
_CREATE_UNICODE_ENVIRONMENT = 0x00000400
_EXTENDED_STARTUPINFO_PRESENT = 0x00080000
_CREATE_NO_WINDOW = 0x08000000
_STARTF_USESTDHANDLES = 0x00000100
_HANDLE_LIST = 0x00020002
_JOB_LIST = 0x0002000D
_KILL_ON_JOB_CLOSE = 0x00002000
_EXTENDED_LIMIT_INFORMATION = 9


class _StartupInfo(ctypes.Structure):
    _fields_ = (
        ("cb", wintypes.DWORD),
        ("lpReserved", wintypes.LPWSTR),
        ("lpDesktop", wintypes.LPWSTR),
        ("lpTitle", wintypes.LPWSTR),
        ("dwX", wintypes.DWORD),
        ("dwY", wintypes.DWORD),
        ("dwXSize", wintypes.DWORD),
        ("dwYSize", wintypes.DWORD),
        ("dwXCountChars", wintypes.DWORD),
        ("dwYCountChars", wintypes.DWORD),
        ("dwFillAttribute", wintypes.DWORD),
        ("dwFlags", wintypes.DWORD),
        ("wShowWindow", wintypes.WORD),
        ("cbReserved2", wintypes.WORD),
        ("lpReserved2", ctypes.c_void_p),
        ("hStdInput", wintypes.HANDLE),
        ("hStdOutput", wintypes.HANDLE),
        ("hStdError", wintypes.HANDLE),
    )


class _StartupInfoEx(ctypes.Structure):
    _fields_ = (("StartupInfo", _StartupInfo), ("lpAttributeList", ctypes.c_void_p))


class _ProcessInformation(ctypes.Structure):
    _fields_ = (
        ("hProcess", wintypes.HANDLE),
        ("hThread", wintypes.HANDLE),
        ("dwProcessId", wintypes.DWORD),
        ("dwThreadId", wintypes.DWORD),
    )


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class Kernel32:
    """Jobs and processes. Every failure is an OSError with the system's own words."""

    def __init__(self, library: Any = None) -> None:
        self._library = library if library is not None else _load()

    def create_job(self) -> int:
        """A job, ours alone (its handle is not inheritable), whose processes die when its last handle is closed."""
        job = self._checked(self._library.CreateJobObjectW(None, None))
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        try:
            self._checked(
                self._library.SetInformationJobObject(
                    wintypes.HANDLE(job), _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
                )
            )
        except BaseException:
            self.close(job)
            raise
        return job

    def create_process_in_job(
        self, job: int, argv: Sequence[str], env: Mapping[str, str], *, stdin: int, output: int
    ) -> tuple[int, int]:
        """Start a program that is in the job from its first instruction on.

        Args:
            job: From `create_job`.
            argv: The command line.
            env: The complete environment.
            stdin: An inheritable handle; with `output` the only ones that the program gets.
            output: An inheritable handle, for stdout and stderr.

        Returns:
            A handle of the process and its id.
        """
        handles = (wintypes.HANDLE * 2)(stdin, output)
        jobs = (wintypes.HANDLE * 1)(job)
        attributes = self._attribute_list({_HANDLE_LIST: handles, _JOB_LIST: jobs})
        startup = _StartupInfoEx()
        startup.StartupInfo.cb = ctypes.sizeof(startup)
        startup.StartupInfo.dwFlags = _STARTF_USESTDHANDLES
        startup.StartupInfo.hStdInput = stdin
        startup.StartupInfo.hStdOutput = output
        startup.StartupInfo.hStdError = output
        startup.lpAttributeList = ctypes.cast(attributes, ctypes.c_void_p)
        created = _ProcessInformation()
        # A console of its own, without a window: no Ctrl-C and no closing of the owner's console reaches it.
        flags = (
            _CREATE_NO_WINDOW | _CREATE_NEW_PROCESS_GROUP | _CREATE_UNICODE_ENVIRONMENT | _EXTENDED_STARTUPINFO_PRESENT
        )
        try:
            self._checked(
                self._library.CreateProcessW(
                    None,
                    ctypes.create_unicode_buffer(subprocess.list2cmdline(argv)),
                    None,
                    None,
                    True,
                    flags,
                    environment_block(env),
                    None,
                    ctypes.byref(startup),
                    ctypes.byref(created),
                )
            )
        finally:
            self._library.DeleteProcThreadAttributeList(attributes)
        self.close(created.hThread)
        return int(created.hProcess), int(created.dwProcessId)

    def wait(self, process: int, timeout_seconds: float) -> int | None:
        """The exit code, or None if the process still runs at the time limit."""
        if self._library.WaitForSingleObject(wintypes.HANDLE(process), int(max(0.0, timeout_seconds) * 1000)):
            return None
        code = wintypes.DWORD()
        self._checked(self._library.GetExitCodeProcess(wintypes.HANDLE(process), ctypes.byref(code)))
        return int(code.value)

    def close(self, handle: int) -> None:
        """Close a handle; closing a job's kills what is in it."""
        self._library.CloseHandle(wintypes.HANDLE(handle))

    def _attribute_list(self, values: Mapping[int, Any]) -> Any:
        n_bytes = ctypes.c_size_t()
        # The first call only says how large it has to be, and "fails".
        self._library.InitializeProcThreadAttributeList(None, len(values), 0, ctypes.byref(n_bytes))
        attributes = ctypes.create_string_buffer(n_bytes.value)
        self._checked(
            self._library.InitializeProcThreadAttributeList(attributes, len(values), 0, ctypes.byref(n_bytes))
        )
        for kind, value in values.items():
            self._checked(
                self._library.UpdateProcThreadAttribute(
                    attributes,
                    0,
                    ctypes.c_size_t(kind),
                    ctypes.byref(value),
                    ctypes.c_size_t(ctypes.sizeof(value)),
                    None,
                    None,
                )
            )
        return attributes

    def _checked(self, result: int | None) -> int:
        if not result:
            raise _last_error()
        return result


def environment_block(env: Mapping[str, str]) -> Any:
    """The environment as CreateProcessW takes it: sorted without regard to case, each entry and the whole ended by NUL."""
    entries = sorted((f"{name}={value}" for name, value in env.items()), key=str.upper)
    return ctypes.create_unicode_buffer("\0".join(entries) + "\0")


def _load() -> Any:
    if sys.platform == "win32":
        library = ctypes.WinDLL("kernel32", use_last_error=True)
        # Handles are as wide as pointers; without this ctypes would cut them to int.
        library.CreateJobObjectW.restype = wintypes.HANDLE
        library.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
        return library
    raise OSError("kernel32 is a part of Windows")


def _last_error() -> OSError:
    if sys.platform == "win32":
        return ctypes.WinError(ctypes.get_last_error())
    return OSError("a call to kernel32 failed")
