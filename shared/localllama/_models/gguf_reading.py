"""Reads the bytes of a GGUF header: metadata entries and tensor descriptions, nothing of their meaning.

The layout (version 2 and 3, little endian), as in ggml/src/gguf.cpp of llama.cpp:

    "GGUF" | u32 version | u64 n_tensors | u64 n_entries | entries | tensor descriptions | padding | tensor data

Every number in a file may lie. So nothing is taken before it is known to lie within the file, and the limits below,
far above any real model, bound time and memory. What llama.cpp refuses is refused here too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from .gguf_tables import SCALAR_FORMATS, TENSOR_TYPES, TYPE_ARRAY, TYPE_STRING

__all__ = ["GGUFArray", "GGUFDamage", "GGUFValue", "RawHeader", "TensorInfo", "read_raw_header"]

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ARRAY_STRINGS = 1 << 24
"""Strings in all arrays of a header together; the largest vocabularies and their merges have some 2**20."""
MAX_KEPT_TEXT_BYTES = 1 << 26
"""Text in all entries of a header together, chat templates included."""
MAX_KEPT_ELEMENTS = 1 << 12
"""Arrays of numbers up to this length are kept (such as head counts of each layer); longer ones are skipped."""

_WINDOW_BYTES = 1 << 20
_MAX_DIMS = 4
_MAX_KEY_BYTES = (1 << 16) - 1  # the GGUF specification's limit
_MAX_TENSOR_NAME_BYTES = 63
_MAX_ELEMENTS = 2**63 - 1
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = "general.alignment"
_MAX_SHOWN = 80

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_COUNTS = struct.Struct("<QQ")
_SCALARS = {code: struct.Struct(text) for code, text in SCALAR_FORMATS.items()}


class GGUFDamage(Exception):  # noqa: N818  it never leaves this package: gguf.py turns it into a ModelCorruptError
    """The header cannot be read; the text says why, without the path.

    Attributes:
        is_foreign_version: It may be undamaged, but its version or byte order is not one that we read.
    """

    def __init__(self, reason: str, *, is_foreign_version: bool = False) -> None:
        super().__init__(reason)
        self.is_foreign_version = is_foreign_version


@dataclass(frozen=True)
class GGUFArray:
    """An array in the metadata.

    Attributes:
        length: How many elements it has.
        numbers: The elements of a short array of numbers; empty for strings and for long arrays.
    """

    length: int
    numbers: tuple[int | float | bool, ...] = ()


GGUFValue = int | float | bool | str | GGUFArray


@dataclass(frozen=True)
class TensorInfo:
    """One tensor description.

    Attributes:
        name: The tensor's name.
        n_elements: Product of its dimensions.
        type: ggml's number of its type.
        offset: Where its data begins, in bytes from the start of the tensor data.
        size_bytes: Length of its data, or None if the type is not known here.
    """

    name: str
    n_elements: int
    type: int
    offset: int
    size_bytes: int | None


@dataclass(frozen=True)
class RawHeader:
    """A header as it stands in one file.

    Attributes:
        version: GGUF version.
        entries: The metadata.
        tensors: The tensor descriptions.
        size_bytes: Length of the header; the tensor data begins at the next multiple of the alignment.
    """

    version: int
    entries: Mapping[str, GGUFValue]
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    size_bytes: int


class _Window:
    """A position in a file of known size, with a buffer of some MB around it.

    Not mmap: a mapped file that another process truncates kills the reader with SIGBUS.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._buffer = b""
        self._start = 0
        self.size_bytes = size_bytes
        self.position = 0
        self.n_array_strings = 0
        self.n_kept_bytes = 0

    @property
    def remaining_bytes(self) -> int:
        return self.size_bytes - self.position

    def require(self, count: int, what: str) -> None:
        if count > self.remaining_bytes:
            raise GGUFDamage(
                f"it ends inside {what}: {count} bytes are needed at byte {self.position}, "
                f"the file has {self.size_bytes}"
            )

    def take(self, count: int, what: str) -> bytes:
        self.require(count, what)
        offset = self.position - self._start
        if offset < 0 or offset + count > len(self._buffer):
            self._fill(count)
            offset = 0
        self.position += count
        return self._buffer[offset : offset + count]

    def skip(self, count: int, what: str) -> None:
        self.require(count, what)
        self.position += count

    def skip_strings(self, count: int, what: str) -> None:
        """Skip strings without decoding them; a vocabulary with its merges has half a million."""
        length_at = _U64.unpack_from
        while count:
            self.require(_U64.size, what)
            if self.position - self._start + _U64.size > len(self._buffer):
                self._fill(_U64.size)
            buffer = self._buffer
            offset = self.position - self._start
            done = 0
            try:
                for done in range(count):  # noqa: B007  used where it breaks off
                    offset += 8 + length_at(buffer, offset)[0]
            except (struct.error, OverflowError):
                # The next length is not in the buffer: go on there with a new one, if the file reaches so far.
                count -= done
            else:
                count = 0
            self.skip(self._start + offset - self.position, what)

    def _fill(self, count: int) -> None:
        wanted = min(max(count, _WINDOW_BYTES), self.remaining_bytes)
        self._file.seek(self.position)
        pieces = []
        missing = wanted
        while missing > 0:
            piece = self._file.read(missing)
            if not piece:
                raise GGUFDamage("it became shorter while it was read")
            pieces.append(piece)
            missing -= len(piece)
        self._buffer = b"".join(pieces)
        self._start = self.position

    def number(self, layout: struct.Struct, what: str) -> int:
        value: int = layout.unpack(self.take(layout.size, what))[0]
        return value

    def string(self, what: str, *, most_bytes: int = MAX_KEPT_TEXT_BYTES) -> str:
        length = self.number(_U64, what)
        self.require(length, what)
        self.n_kept_bytes += length
        if length > most_bytes or self.n_kept_bytes > MAX_KEPT_TEXT_BYTES:
            raise GGUFDamage(f"{what} is {length} bytes long, more than any real model has there")
        return self.take(length, what).decode("utf-8", errors="replace")


def read_raw_header(file: BinaryIO, size_bytes: int) -> RawHeader:
    """Read the header of an open file that begins with the magic bytes.

    Args:
        file: Opened for reading in binary mode, seekable.
        size_bytes: Its size.

    Raises:
        GGUFDamage: The header is not one that llama.cpp could load.
        OSError: The file could not be read.
    """
    window = _Window(file, size_bytes)
    if window.take(len(MAGIC), "the magic bytes") != MAGIC:
        raise GGUFDamage("it does not begin with 'GGUF'")
    version = _checked_version(window.number(_U32, "the version"))
    n_tensors, n_entries = _COUNTS.unpack(window.take(_COUNTS.size, "the counts of tensors and entries"))
    _check_count(n_entries, MAX_ENTRIES, "metadata entries")
    entries = _read_entries(window, n_entries)
    alignment = _alignment(entries)
    _check_count(n_tensors, MAX_TENSORS, "tensors")
    tensors = _read_tensors(window, n_tensors)
    header_bytes = window.position
    if tensors:
        _check_extents(tensors, -(-header_bytes // alignment) * alignment, alignment, size_bytes)
    return RawHeader(version=version, entries=entries, tensors=tensors, size_bytes=header_bytes)


def _checked_version(version: int) -> int:
    if version in SUPPORTED_VERSIONS:
        return version
    if version == 0:
        raise GGUFDamage("it has GGUF version 0")
    if version & 0xFFFF == 0:
        reason = "it is a big-endian GGUF file, and only little-endian ones are read"
    elif version == 1:
        reason = "it is GGUF version 1, which llama.cpp no longer loads"
    else:
        reason = f"it is GGUF version {version}, and only versions 2 and 3 are known"
    raise GGUFDamage(reason, is_foreign_version=True)


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise GGUFDamage(f"it announces {count} {what}, more than any real model has")


def _read_entries(window: _Window, count: int) -> dict[str, GGUFValue]:
    entries: dict[str, GGUFValue] = {}
    for index in range(count):
        key = window.string(f"the key of metadata entry {index}", most_bytes=_MAX_KEY_BYTES)
        if not key or key in entries:
            raise GGUFDamage(f"metadata entry {index} repeats the key {key!r}" if key else f"entry {index} has no key")
        entries[key] = _read_value(window, key, window.number(_U32, f"the type of {_shown(key)}"))
    return entries


def _read_value(window: _Window, key: str, code: int) -> GGUFValue:
    what = f"the value of {_shown(key)}"
    if code == TYPE_STRING:
        return window.string(what)
    if code == TYPE_ARRAY:
        return _read_array(window, key)
    layout = _SCALARS.get(code)
    if layout is None:
        raise GGUFDamage(f"{what} has type {code}, which GGUF does not have")
    value: int | float | bool = layout.unpack(window.take(layout.size, what))[0]
    return value


def _read_array(window: _Window, key: str) -> GGUFArray:
    what = f"the array {_shown(key)}"
    code = window.number(_U32, what)
    length = window.number(_U64, what)
    if code == TYPE_STRING:
        window.n_array_strings += length
        _check_count(window.n_array_strings, MAX_ARRAY_STRINGS, f"strings in arrays up to {_shown(key)}")
        window.skip_strings(length, what)
        return GGUFArray(length)
    layout = _SCALARS.get(code)
    if layout is None:
        # An array of arrays has a type number of its own in the format, but llama.cpp refuses it as well.
        raise GGUFDamage(f"{what} has elements of type {code}, which llama.cpp does not read")
    if length > MAX_KEPT_ELEMENTS:
        window.skip(length * layout.size, what)
        return GGUFArray(length)
    data = window.take(length * layout.size, what)
    return GGUFArray(length, tuple(value for (value,) in layout.iter_unpack(data)))


def _alignment(entries: Mapping[str, GGUFValue]) -> int:
    alignment = entries.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise GGUFDamage(f"{_ALIGNMENT_KEY} is {alignment!r}, not a power of two")
    return alignment


def _read_tensors(window: _Window, count: int) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    for index in range(count):
        what = f"the description of tensor {index}"
        name = window.string(what, most_bytes=_MAX_TENSOR_NAME_BYTES)
        if name in tensors:
            raise GGUFDamage(f"it describes tensor {name!r} twice")
        n_dims = window.number(_U32, what)
        if n_dims > _MAX_DIMS:
            raise GGUFDamage(f"tensor {name!r} has {n_dims} dimensions; at most {_MAX_DIMS} are possible")
        dims = struct.unpack(f"<{n_dims}Q", window.take(8 * n_dims, what))
        code = window.number(_U32, what)
        offset = window.number(_U64, what)
        tensors[name] = _tensor(name, dims, code, offset)
    return tuple(tensors.values())


def _tensor(name: str, dims: tuple[int, ...], code: int, offset: int) -> TensorInfo:
    n_elements = 1
    for length in dims:
        n_elements *= length
    if n_elements > _MAX_ELEMENTS:
        raise GGUFDamage(f"tensor {name!r} has impossible dimensions {dims}")
    known = TENSOR_TYPES.get(code)
    if known is None:
        return TensorInfo(name, n_elements, code, offset, None)
    type_name, block_elements, block_bytes = known
    row = dims[0] if dims else 1
    if row % block_elements:
        raise GGUFDamage(
            f"tensor {name!r} has rows of {row} elements, not a multiple of {type_name}'s {block_elements}"
        )
    return TensorInfo(name, n_elements, code, offset, n_elements // block_elements * block_bytes)


def _check_extents(tensors: tuple[TensorInfo, ...], data_start: int, alignment: int, size_bytes: int) -> None:
    """Every tensor lies within the file, one after the other; a type unknown here ends the second check."""
    expected: int | None = 0
    for tensor in tensors:
        if tensor.offset % alignment or (expected is not None and tensor.offset != expected):
            raise GGUFDamage(
                f"the data of tensor {tensor.name!r} is said to begin at {tensor.offset}, "
                + (f"but {expected} comes next" if expected is not None else f"not a multiple of {alignment}")
            )
        end = data_start + tensor.offset + (tensor.size_bytes or 0)
        if end > size_bytes:
            raise GGUFDamage(
                f"it is cut short: tensor {tensor.name!r} needs the file to have at least {end} bytes, "
                f"it has {size_bytes}"
            )
        if tensor.size_bytes is None or expected is None:
            expected = None
        else:
            expected += -(-tensor.size_bytes // alignment) * alignment


def _shown(key: str) -> str:
    return repr(key if len(key) <= _MAX_SHOWN else key[: _MAX_SHOWN - 3] + "...")
