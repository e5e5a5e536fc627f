"""From the start frame to the user's code: a spare, or a fresh interpreter, becomes the child.

A child sees what its starter sees at that moment: working directory, environment, descriptors
0-2, resource limits, umask, signal mask and the rest. Signals stay blocked until all of it stands.
"""

from __future__ import annotations

import importlib
import marshal
import os
import struct
import sys

from procession import _identity, _native
from procession._child import inherited
from procession._wire import channel, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIZES = struct.Struct("<QQ")


class Seat:
    """A process's place in its program: its slot in the table, and the way to the guard."""

    __slots__ = ("credentials", "door", "generation", "guard_generation", "index", "table")

    def __init__(
        self, table: _native.Table, door: channel.Socket, index: int, generation: int
    ) -> None:
        self.credentials = b""
        self.table = table
        self.door = door
        self.index = index
        self.generation = generation
        self.guard_generation = table.read(messages.GUARD_SLOT)[1]


seat: Seat | None = None
"""This process's own seat; ``None`` in main and in what is not ours."""

is_heir = False
"""Whether main's file is being run in here for children to come: nothing may be started."""


def serve(place: Seat, stream: channel.Socket, bell: int) -> int:
    """Wait as a spare for the start frame, then be that child.

    Args:
        place: Its seat.
        stream: Where the frame will come from.
        bell: An eventfd that tells the zygote to make another spare.

    Returns:
        The exit status; 0 also when no frame will ever come.
    """
    received = channel.receive_frame(stream)
    if received is None:
        return 0
    os.eventfd_write(bell, 1)
    os.close(bell)
    stream.close()
    header, payload, fds = received
    if header["exec"]:
        _execute(place, header, payload, fds)
    return _run(place, header, payload, fds)


def spawned() -> NoReturn:
    """Be the child that a spare became by executing this interpreter."""
    with open(int(sys.argv.pop(1)), "rb") as file:
        sizes = _SIZES.unpack(file.read(_SIZES.size))
        (table_fd, door_fd, index, generation, header, fds) = marshal.loads(file.read(sizes[0]))
        payload = file.read(sizes[1])
    for fd in (table_fd, door_fd, *fds):
        os.set_inheritable(fd, False)
    table = _native.Table.attach(table_fd)
    table.enter(index, _native.ASKED)
    place = Seat(table, channel.adopt(door_fd), index, generation)
    sys.exit(_run(place, header, payload, fds))


def _execute(place: Seat, header: dict[str, Any], payload: bytearray, fds: list[int]) -> NoReturn:
    """Become a fresh interpreter; the frame waits for it in a memfd."""
    program, arguments = header["exec"]
    memfd = os.memfd_create("procession-start", 0)  # first: one of 0-2 may be free soon
    # before it executes: it chooses the buffering of its streams by what they are
    rest = restore_standard_descriptors(header, fds)
    text = marshal.dumps(
        (
            place.table.fileno(),
            place.door.fileno(),
            place.index,
            place.generation,
            header,
            rest,
        )
    )
    with open(memfd, "wb", closefd=False) as file:
        file.write(_SIZES.pack(len(text), len(payload)))
        file.write(text)
        file.write(payload)
    os.lseek(memfd, 0, os.SEEK_SET)
    for fd in (place.table.fileno(), place.door.fileno(), *rest):
        os.set_inheritable(fd, True)
    _take_directory_and_environment(header, rest)
    place.table.drop_life(place.index)  # exec would mark it as left by the dead
    try:
        os.execv(program, [*arguments, str(memfd)])
    except OSError as error:
        os.write(2, f"procession: cannot execute {program!r}: {error.strerror}\n".encode())
        os._exit(127)


def _run(place: Seat, header: dict[str, Any], payload: bytes | bytearray, fds: list[int]) -> int:
    global seat
    from procession._child import ending

    last_words = ending.LastWords(place)
    try:
        try:
            if not header["exec"]:
                ending.prepare_exit_functions()
            seat = place
            _identity.settle(place.table)
            place.credentials = header["credentials"]
            rest = fds
            if not header["exec"]:
                rest = restore_standard_descriptors(header, fds)
                _take_directory_and_environment(header, rest)
            if header["cwd"]:
                os.close(rest.pop(0))
            if header["tracker"]:
                from multiprocessing import resource_tracker

                resource_tracker._resource_tracker._fd = rest.pop(0)  # type: ignore[attr-defined]
            inherited.fds[:] = rest
            place.table.run(place.index)
            say_started(place)
            _native.set_process_name(header["comm"])
            take_surroundings(header["surroundings"])
            process = _unpickle(header, payload)
        except SystemExit as leaving:
            return last_words.say(_exit_status(leaving))
        except Exception:
            last_words.raised(sys.exc_info()[1])
            sys.excepthook(*sys.exc_info())
            return last_words.say(1)
        return enter(place, process, header["owner"], last_words)
    except KeyboardInterrupt as interrupt:
        last_words.raised(interrupt)  # no storm of tracebacks for one Ctrl-C (G10)
        return last_words.say(1)
    finally:
        if not header["exec"]:
            ending.run_exit_functions()


def say_started(place: Seat) -> None:
    """Tell the recording, where there is one, that this process's code begins.

    It need not arrive: what nobody told is told at the process's end.
    """
    if place.table.recorded():
        message = (messages.STARTED, place.index, place.generation)
        try:
            channel.send(place.door, message, (), channel.DONT_WAIT)
        except OSError:
            pass


def _exit_status(leaving: SystemExit) -> int:
    """As an interpreter would end: words are printed, and count as failure."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def enter(place: Seat, process: Any, owner: tuple[int, int, int], last_words: Any) -> int:
    """Run the user's process object, from multiprocessing's own entrance to our last words."""
    last_words.watch(process)
    code = process._bootstrap(parent_sentinel=parent_sentinel(place, *owner))
    said: int = last_words.say(code)
    return said


def _unpickle(header: dict[str, Any], payload: bytes | bytearray) -> Any:
    from multiprocessing import process as mp_process

    from procession import _current
    from procession._child import main_module

    if header["debugger"]:  # by name: the rooms above this one are only loaded from here
        importlib.import_module("procession._launch.debugger").accept(header["debugger"])
    if header["replaced"]:
        importlib.import_module("procession._launch.replacement").install()
    _take_warning_filters(header["warnings"])
    reseed()
    me = mp_process.current_process()
    me._inheriting = True  # type: ignore[attr-defined]
    try:
        process = main_module.load_start(payload, header["name"])
    finally:
        del me._inheriting  # type: ignore[attr-defined]
    _current.adopt(header["default_method"])
    return process


def parent_sentinel(place: Seat, pid: int, index: int, generation: int) -> int:
    """A descriptor that becomes readable when the process's starter has ended."""
    try:
        pidfd = os.pidfd_open(pid)
        if place.table.state(index, generation) in (_native.ASKED, _native.RUNNING):
            return pidfd
        os.close(pidfd)
    except OSError:
        pass  # gone already, or a kernel without pidfds
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def restore_standard_descriptors(header: dict[str, Any], fds: list[int]) -> list[int]:
    """Put the starter's descriptors 0-2 in place; the descriptors that are left."""
    rest = list(fds)
    for number in range(3):
        if header["std"] & 1 << number:
            fd = rest.pop(0)
            os.dup2(fd, number)
            os.close(fd)
        else:
            os.close(number)
    if not header["exec"]:  # a fresh interpreter makes its own
        _reopen_streams()
    return rest


def _reopen_streams() -> None:
    """Give the streams over 0-2 the buffering that a fresh interpreter would choose.

    The zygote's were made for other files, with nothing read or written yet: only what depends on
    the file is set anew.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = getattr(sys, f"__{name}__")
        try:
            os.fstat(number)
        except OSError:
            stream = None
        if stream is not None and number > 0:
            by_line = number == 2 or os.isatty(number)
            if stream.line_buffering != by_line:
                stream.reconfigure(line_buffering=by_line)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _take_directory_and_environment(header: dict[str, Any], fds: list[int]) -> None:
    if header["cwd"]:
        os.fchdir(fds[0])
    wanted: dict[bytes, bytes] | None = header["environ"]
    if wanted is not None:
        for key in os.environb.keys() - wanted.keys():
            del os.environb[key]
        for key, value in wanted.items():
            if os.environb.get(key) != value:
                os.environb[key] = value


def take_surroundings(surroundings: bytes) -> None:
    """Limits, priority, umask and the rest; then signals, the mask last of all."""
    import signal

    blocked, wanted, now = _native.apply_surroundings(surroundings)
    for number in range(1, 65) if wanted != now else ():
        bit = 1 << number - 1
        if (wanted ^ now) & bit:
            plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            try:
                signal.signal(number, signal.SIG_IGN if wanted & bit else plain)
            except (OSError, ValueError):
                continue  # SIGKILL, SIGSTOP, and the two that glibc keeps to itself
    _native.set_blocked(blocked)


def _take_warning_filters(pickled: bytes | None) -> None:
    if pickled is None:
        return
    import pickle
    import warnings

    warnings.filters[:] = pickle.loads(pickled)  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def reseed() -> None:
    """Random generators that the zygote had imported: no two children may draw the same."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
