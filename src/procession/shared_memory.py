"""Shared memory with a name, and a list in it.

A segment goes with the program that made it, however that ends, and with nobody else's: to attach
is not to own. Its memory is reserved when it is made, so that a full /dev/shm is an error then and
no SIGBUS later. The classes are subclasses of `multiprocessing.shared_memory`'s.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import struct
from collections.abc import Iterable
from multiprocessing import shared_memory as _standard
from typing import Any

from procession._kernel import memfd, segments
from procession._launch import segments as account

__all__ = ["ShareableList", "SharedMemory"]

_SHM_NAME_PREFIX = "/psm_"
_USE_POSIX = True
_ATTEMPTS = 100  # to get hold of a file that somebody locks; then it is used without a lock


def _make_filename() -> str:
    """A name that nobody has, most likely."""
    return _SHM_NAME_PREFIX + secrets.token_hex(4)


class SharedMemory(_standard.SharedMemory):
    """Shared memory that other processes find by its name.

    Args:
        name: Its name, without the slash; ``None`` makes one.
        create: Make it, or attach to what is there.
        size: Bytes, where it is made.
        track: Whether it is to be removed when the program that makes it ends, in whatever way.

    Raises:
        ValueError: The size is not positive, or there is no name to attach to.
        FileExistsError: The name is taken.
        FileNotFoundError: There is no such segment, or no /dev/shm.
        OSError: There is no memory for it; nothing is left behind.
    """

    _track = True
    _inode = -1
    _mode = 0o600
    _mmap: Any = None
    _buf: Any = None

    def __init__(
        self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True
    ) -> None:
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create and size == 0:
            raise ValueError("'size' must be a positive number different from zero")
        if name is None and not create:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        folder = segments.open_folder()
        try:
            if not create:
                assert name is not None
                self._attach(folder, "/" + name)
            elif name is not None:
                # before its memory is taken
                if not _is_free(folder, segments.file_name(name)):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"/{name}")
                self._create(folder, "/" + name, size)
            else:
                while self._mmap is None:
                    try:
                        self._create(folder, _make_filename(), size)
                    except FileExistsError:
                        continue
        finally:
            os.close(folder)

    # --- making and finding it ------------------------------------------------------------------

    def _create(self, folder: int, name: str, size: int) -> None:
        file = segments.file_name(name)
        account.sweep_once()
        try:
            fd, named = segments.create(folder, file, self._mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
        mapping = None
        inode = os.fstat(fd).st_ino
        try:
            segments.use(fd)
            _make_room(fd, size)
            mapping = mmap.mmap(fd, size)
            if self._track:
                account.track(file, fd)
            if not named:
                try:
                    segments.give_name(folder, file, fd)
                except FileExistsError:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        except BaseException:
            if self._track:
                account.forget(file, inode)
            if named:
                segments.remove(folder, file, inode)
            if mapping is not None:
                mapping.close()
            os.close(fd)
            raise
        self._have(name, fd, inode, mapping, size)

    def _attach(self, folder: int, name: str) -> None:
        file = segments.file_name(name)
        for attempt in range(_ATTEMPTS):
            try:
                fd = segments.open_file(folder, file)
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None
            try:
                if segments.remove_if_left(folder, file, fd):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                in_use = segments.use(fd)
                status = os.fstat(fd)
                # swept just now, by somebody who locks it for a moment
                if (in_use and status.st_nlink) or attempt == _ATTEMPTS - 1:
                    if not status.st_size:
                        raise ValueError(
                            f"shared memory {name[1:]!r} is empty: it has not got its size yet"
                        )
                    mapping = mmap.mmap(fd, status.st_size)
                    self._have(name, fd, status.st_ino, mapping, status.st_size)
                    return
            finally:
                if self._fd != fd:
                    os.close(fd)
            os.sched_yield()

    def _have(self, name: str, fd: int, inode: int, mapping: mmap.mmap, size: int) -> None:
        self._name, self._fd, self._inode = name, fd, inode
        self._mmap, self._buf, self._size = mapping, memoryview(mapping), size

    # --- letting it go --------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the memory; others have it as before.

        Raises:
            BufferError: Something made from `buf` still looks into it; nothing has changed then.
        """
        mapping = self._mmap
        if mapping is not None:
            if self._buf is not None:
                self._buf.release()
            try:
                mapping.close()
            except BufferError:
                self._buf = memoryview(mapping)
                raise
        self._mmap = self._buf = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        try:
            try:
                self.close()
            except BufferError:  # the mapping goes with the last one who looks into it
                fd, self._fd = self._fd, -1
                os.close(fd)
        except Exception:
            pass  # the interpreter ends, or its descriptors were closed by somebody

    def unlink(self) -> None:
        """Take the name away; the memory goes with its last user.

        Raises:
            FileNotFoundError: Somebody has done so already.
        """
        name = self._name
        if not name:
            return
        file = segments.file_name(name)
        try:
            os.unlink(os.path.join(segments.FOLDER, file))
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
        finally:
            if self._track:
                account.forget(file, self._inode)


def _is_free(folder: int, file: str) -> bool:
    """Whether a name can be given: nobody has it, or a dead program left it."""
    try:
        fd = segments.open_file(folder, file)
    except FileNotFoundError:
        return True
    except OSError as error:
        if segments.exists(folder, file):  # another user's, or no plain file
            return False
        raise OSError(error.errno, error.strerror, f"/{file}") from None
    try:
        return segments.remove_if_left(folder, file, fd)
    finally:
        os.close(fd)


def _make_room(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise memfd.refusal(error, size) from None
    memfd.reserve(fd, 0, size)


# --- a list in it -----------------------------------------------------------------------------

_WORD = 8  # bytes; every item begins at a multiple of it
_NONE = 3
_CODES: dict[type, int] = {str: 1, bytes: 2, type(None): _NONE}  # others: 0
_FORMATS: dict[type, str] = {int: "q", float: "d", bool: "xxxxxxx?", type(None): "xxxxxx?x"}
_LONGEST_FORMAT = 8  # characters


class ShareableList(_standard.ShareableList[Any]):
    """A list of fixed length in shared memory: of int, float, bool, str, bytes and None.

    An item takes the room of the first value; a str or bytes may be replaced by a shorter one. The
    layout is the standard library's, so that its processes can attach:

        count, count + 1 offsets of items in the data      8 bytes each
        data                                               multiples of 8
        a struct format for each item                      8 bytes each
        a code for each item: what to make of the bytes    1 byte each

    Where an item changes its type, its code says None until the rest is written: whoever is killed
    in between leaves a None, and never a value that cannot be read (G4).

    Args:
        sequence: The items; ``None`` attaches to the list of that name.
        name: The segment's name.

    Raises:
        KeyError: An item is of another type.
        struct.error: An int does not fit into 64 bits.
        ValueError: An item is too large, or what is attached to is no such list.
    """

    def __init__(self, sequence: Iterable[Any] | None = None, *, name: str | None = None) -> None:
        if sequence is None and name is not None:
            self.shm = SharedMemory(name)
            self._read_layout()
            return
        items = list(sequence or ())
        formats = [_format(item) for item in items]
        data = [
            struct.pack(form, _encoded(item)) for form, item in zip(formats, items, strict=True)
        ]
        offsets = [0]
        for piece in data:
            offsets.append(offsets[-1] + len(piece))
        whole = b"".join(
            (
                struct.pack(f"{len(items) + 2}q", len(items), *offsets),
                *data,
                *(form.encode().ljust(_WORD, b"\0") for form in formats),
                bytes(_CODES.get(type(item), 0) for item in items),
            )
        )
        self.shm = SharedMemory(name, create=True, size=len(whole))
        self._buffer()[: len(whole)] = whole
        self._list_len, self._allocated_offsets = len(items), offsets

    def _read_layout(self) -> None:
        buffer = self._buffer()
        try:
            (count,) = struct.unpack_from("q", buffer)
            offsets = list(struct.unpack_from(f"{count + 1}q", buffer, _WORD))
            if (count + 2) * _WORD + offsets[-1] + count * (_WORD + 1) > len(buffer):
                raise ValueError("it ends before its last item")
        except (struct.error, ValueError) as error:
            name = self.shm.name
            self.shm.close()
            raise ValueError(f"shared memory {name!r} holds no ShareableList: {error}") from None
        self._list_len, self._allocated_offsets = count, offsets

    def _buffer(self) -> memoryview:
        buffer = self.shm.buf
        if buffer is None:
            raise ValueError("the list's shared memory is closed")
        return buffer

    def _places(self, position: int) -> tuple[int, int, int, int]:
        """Where the data, the end of the data, the format and the code of an item are."""
        count, offsets = self._list_len, self._allocated_offsets
        if position < 0:
            position += count
        if not 0 <= position < count:
            raise IndexError("index out of range")
        data = (count + 2) * _WORD
        formats = data + offsets[count]
        return (
            data + offsets[position],
            data + offsets[position + 1],
            formats + position * _WORD,
            formats + count * _WORD + position,
        )

    def __getitem__(self, position: int) -> Any:
        buffer = self._buffer()
        begin, _, form, code = self._places(position)
        kind = buffer[code]
        if kind == _NONE:
            return None
        (value,) = struct.unpack_from(_text(buffer, form), buffer, begin)
        if kind == 0:
            return value
        stripped = value.rstrip(b"\0")
        return stripped.decode() if kind == _CODES[str] else stripped

    def __setitem__(self, position: int, value: Any) -> None:
        buffer = self._buffer()
        begin, end, form, code = self._places(position)
        encoded = _encoded(value)
        old_format = _text(buffer, form)
        if isinstance(value, (str, bytes)):
            if len(encoded) > end - begin:
                raise ValueError("bytes/str item exceeds available storage")
            new_format = old_format if old_format.endswith("s") else f"{end - begin}s"
        else:
            new_format = _FORMATS[type(value)]
        data = struct.pack(new_format, encoded)
        new_code = _CODES.get(type(value), 0)
        if (old_format, buffer[code]) == (new_format, new_code):
            buffer[begin : begin + len(data)] = data
            return
        buffer[code] = _NONE
        buffer[form : form + _WORD] = new_format.encode().ljust(_WORD, b"\0")
        buffer[begin : begin + len(data)] = data
        buffer[code] = new_code


def _format(item: Any) -> str:
    """The struct format of a new item.

    The room of a str is counted by its characters, as the standard library does, but is never too
    small for its bytes (there, such an item is cut).
    """
    if not isinstance(item, (str, bytes)):
        return _FORMATS[type(item)]
    words = max(len(item) // _WORD + 1, -(-len(_encoded(item)) // _WORD))
    form = f"{_WORD * words}s"
    if len(form) > _LONGEST_FORMAT:
        raise ValueError(f"an item of {len(item)} characters is too large for a ShareableList")
    return form


def _encoded(item: Any) -> Any:
    return item.encode() if isinstance(item, str) else item


def _text(buffer: memoryview, place: int) -> str:
    return bytes(buffer[place : place + _WORD]).rstrip(b"\0").decode()
