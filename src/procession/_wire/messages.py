"""The words that main, guard, zygote and children say to each other.

Over the *door* (everybody writes, the guard reads):

    (BEGIN, config)                      main, once; with main's pidfd
    (HELLO, owner)                       somebody wants to start processes; with its link
    (REGISTER, index, generation)        a child of start method fork; with its own pidfd
    (OUTCOME, index, generation, bytes)  a child's value or exception; in a memfd where large
    (FETCH, index, generation)           the owner asks for it; with a socket for the answer
    (DEPOSIT, token, owner)              keep this descriptor, which is on its way to somebody
    (DEPOSIT, token, owner, item, queue)   in an item of a queue (0: it cannot be watched); with
                                         the descriptor of the queue's data
    (CLAIM, token, item)                 it has come; with a socket for the descriptor
    (ARRIVED, token, item)               it has come to somebody who has it already
    (PLACED, item, number)               the item's number in its queue; 0: it did not go in
    (LOST, queue, first, last)           nobody will ever have the items of these numbers
    (DROP, token, owner)                 who deposited it has no use for it any more
    (SEGMENT, name, inode)               named shared memory is to go with the program; with the
                                         folder it is in, held (`_kernel.segments`)
    (SEGMENT_GONE, name, inode)          it was unlinked, or is to stay
    (HEIR, order, main)                  run main's file once, ahead of children, if that leaves
                                         nothing; with those of 0-2 that are open
    (GOODBYE, how)                       main came to Python's own end; with a socket for the answer
    (RECORD, since_ns)                   write a recording from now on; with its file
    (RECORD_NO_MORE,)                    and no longer; with a socket for the answer

and, while a recording is written (the table says so), what only the recording wants to know:

    (STARTED, index, generation)         a child's code begins
    (WAITS, waiter, whom, began_ns)      a wait has blocked for a moment and goes on
    (WAITED, waiter, whom, began_ns, ended_ns)   it was given up
    (CODE_ENDED, who, at_ns)             its code has ended, it waits at exit
    (OWNER_DIED, owner, taker, lock, at_ns)      a lock was passed on from the dead

Over a *link* (one owner, the zygote):

    owner → zygote   WAIT       no spare is left: its owner waits
    zygote → owner   (SPARE, pid, index, generation); with the spare's stream
                     (FAILED, errno, text)

That a spare was used the zygote sees in the table; the spare itself rings its *bell* (an eventfd)
when its call has come, so that its owner need not.

Between guard and zygote:

    guard → zygote   (OWNER, owner); with the link      (HEIR, order, main); with its channel, 0-2
                     (NO_HEIR,)                         (RETIRE,)
                     (FINISH,)                          (END,)
    zygote → guard   (ENDED, index, generation)         (RETIRED, reason)
                     (STOPPED, index, generation, at_ns), (CONTINUED, …): only for the recording
                     (STEPPED_DOWN,): it reads no link any more
    heir → guard     (BORN, pid); with its pidfd        (READY,): from now on it is a zygote
"""

from __future__ import annotations

BEGIN = "begin"
HELLO = "hello"
REGISTER = "register"
OUTCOME = "outcome"
FETCH = "fetch"
DEPOSIT = "deposit"
CLAIM = "claim"
ARRIVED = "arrived"
PLACED = "placed"
LOST = "lost"
DROP = "drop"
SEGMENT = "segment"
SEGMENT_GONE = "segment gone"
HEIR = "heir"
GOODBYE = "goodbye"
RECORD = "record"
RECORD_NO_MORE = "record no more"

STARTED = "started"
WAITS = "waits"
WAITED = "waited"
CODE_ENDED = "code ended"
OWNER_DIED = "owner died"
STOPPED = "stopped"
CONTINUED = "continued"

WAIT = b"w"
FAILED = "failed"

OWNER = "owner"
NO_HEIR = "no heir"
RETIRE = "retire"
"""The heir is ready: serve nobody any more, and go when your children have."""
STEPPED_DOWN = "stepped down"
FINISH = "finish"
"""The program came to Python's own end: end the unused spares, and go."""
END = "end"
"""Main is gone: end everything below you, and go."""
ENDED = "ended"
RETIRED = "retired"
BORN = "born"
READY = "ready"

INLINE_OUTCOME = 32 * 1024  # bytes; larger ones travel in a memfd

LINK_ROOM = 4096  # bytes; the longest message on a link is a refusal's text

MAIN_SLOT = 0
"""The slot of the program's main process in the table of processes."""
GUARD_SLOT = 1
"""The guard's own slot; it only holds the guard's life word, a new generation for each guard."""

SLOTS = 65536  # twice the kernel's default pid_max; sparse, so unused ones cost nothing

COMM_GUARD = "pn-guard"  # comm has room for 15 characters (prctl(2), PR_SET_NAME)
COMM_ZYGOTE = "pn-zygote"
COMM_SPARE = "pn-spare"
COMM_HEIR = "pn-heir"
COMM_RETIRED = "pn-retired"
COMM_ANCHOR = "pn-anchor"  # src/anchor.c of the C core gives it

COMMS = (COMM_GUARD, COMM_ZYGOTE, COMM_SPARE, COMM_HEIR, COMM_RETIRED, COMM_ANCHOR)
"""The keeper's processes, and a child until it is itself."""

KEEPER_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from procession._keeper.__main__ import main; main()"
)
"""Program text of the keeper's interpreter; arguments: our package's folder, three descriptors."""

SPAWN_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from procession._child.bootstrap import spawned; spawned()"
)
"""Program text of a fresh interpreter (start method spawn); arguments: the folder, a memfd."""

BY_VALUE = "__procession_by_value__"
"""Attribute of a `__main__` that came to its process by value, and so goes on by value."""
