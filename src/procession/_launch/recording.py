"""`procession.record`: the lives of this program's processes, written into a file from now on."""

from __future__ import annotations

import os
import time

from procession._kernel.polling import is_readable
from procession._launch import keeper_client, replacement
from procession._recording import writer
from procession._wire import channel, messages
from procession.errors import RecordingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

WRITTEN_LIMIT = 2.0  # seconds for the guard to write its last lines


class Recording:
    """A recording that is being written; `close`, or the end of a ``with`` block, completes it.

    Attributes:
        path: The file; ``procession show`` draws it, also while it is written.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._owner_pid = os.getpid()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Recording {self.path!r}, {'closed' if self._fd < 0 else 'written'}>"

    def close(self) -> None:
        """Write no more; what was told until now is in the file when this returns.

        Processes that live on are drawn as living. Does nothing the second time, and in a forked
        copy of the process that began it.
        """
        if self._fd < 0 or self._owner_pid != os.getpid():
            return
        fd, self._fd = self._fd, -1
        replacement.recording = -1
        keeper = keeper_client.existing()
        if keeper is not None and not keeper.closed:
            ours, theirs = channel.message_pair()
            with ours:
                with theirs:
                    told = keeper.tell(messages.RECORD_NO_MORE, fds=[theirs.fileno()])
                if told:
                    is_readable(ours.fileno(), WRITTEN_LIMIT * 1000)
        os.close(fd)


def record(path: str | os.PathLike[str], *, force: bool = False) -> Recording:
    """Write the lives of this program's processes into a file from now on (G13).

    Use it as ``with procession.record("run.plr"): …``, or call it and let the program's end
    complete the file. It says of the whole program, children of children included, who started
    whom, who waited for whom and how long, and how each one ended; a SIGKILL of anybody loses
    nothing that was told. Processes that run already are in it with the times known of them.

    Args:
        path: The file; ``.plr`` is the usual ending.
        force: Overwrite a file that is there.

    Raises:
        FileExistsError: There is such a file; nothing was changed.
        OSError: The file cannot be made; the program goes on unrecorded.
        RecordingError: The program is recorded already.
    """
    import procession

    name = os.fspath(path)
    keeper = keeper_client.existing()
    if keeper is None and keeper_client.has_seat():
        keeper = keeper_client.ensure(zygote=True)  # the whole program's, not started here
    if replacement.recording >= 0 or (
        keeper is not None and not keeper.closed and keeper.table.recorded()
    ):
        raise RecordingError(
            "this program is recorded already (by procession run, or an earlier record()): close "
            f"that one before {name!r} is begun"
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        fd = os.open(name, flags | (os.O_TRUNC if force else os.O_EXCL), 0o666)
    except FileExistsError as error:
        raise FileExistsError(
            error.errno, "there is such a file already; force=True overwrites it", name
        ) from None
    head = writer.head(time.monotonic(), time.time(), procession.__version__)
    if not writer.append(fd, head):
        os.close(fd)
        raise OSError(f"cannot write the recording {name!r}: its file system is full")
    replacement.recording = fd
    if keeper is not None and not keeper.closed:
        keeper.table.set_recorded(True)  # here, so that the very next start is told
        if not keeper.tell(messages.RECORD, time.monotonic_ns(), fds=[fd]):
            keeper.table.set_recorded(False)
    return Recording(name, fd)
