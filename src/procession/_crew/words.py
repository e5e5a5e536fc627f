"""How failures are told: a crew's own exceptions; a pool and an executor have theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procession.errors import CallExited, ResultNotPicklable, WorkerDied

if TYPE_CHECKING:
    from procession._crew.hand import Hand
    from procession.ending import Ending


class Words:
    """The exceptions in which a crew tells of failures; a pool and an executor have their own."""

    def died(self, hand: Hand, ending: Ending, call: str, stack: str) -> BaseException:
        """A worker died with a call in hand."""
        return WorkerDied(hand.process.name, hand.pid, ending, call, stack)

    def exited(self, call: str, error: BaseException) -> BaseException:
        """A call called ``sys.exit``."""
        exited = CallExited(call, exit_code(error))
        exited.__cause__ = error
        return exited

    def unsendable(self, call: str, text: str, error: BaseException) -> BaseException:
        """A call returned what cannot be pickled."""
        refused = ResultNotPicklable(
            f"{call} returned {text}, which cannot be pickled: {type(error).__name__}: {error}"
        )
        refused.__cause__ = error
        return refused

    def unloadable(self, call: str, error: BaseException) -> BaseException:
        """What a call returned cannot be unpickled here."""
        refused = ResultNotPicklable(
            f"what {call} returned cannot be unpickled here: {type(error).__name__}: {error}"
        )
        refused.__cause__ = error
        return refused

    def raised(self, error: BaseException, text: str) -> BaseException:
        """A call raised; with its traceback in words."""
        return error

    def closed(self) -> BaseException:
        """The call came when no more were taken."""
        return ValueError("Pool not running")

    def no_start(self, error: BaseException) -> BaseException:
        """The initializer failed, or no worker can be started: what every call ends with."""
        return error


def again(error: BaseException) -> BaseException:
    """An exception that tells many, for one more of them: a shared one grows with each raise."""
    import copy

    try:
        other = copy.copy(error)
    except Exception:  # a kind of the user's, whose arguments do not make another one
        return error
    other.__cause__ = error.__cause__
    return other


def exit_code(error: BaseException) -> object:
    """What was passed to ``sys.exit``; the attribute itself does not survive pickling."""
    return error.args[0] if len(error.args) == 1 else error.args or None
