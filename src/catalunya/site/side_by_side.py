"""Work on several processors: each part in a fork of this process, which has all that was read already."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from catalunya.errors import CatalunyaError

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")
_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def side_by_side(work: Callable[[_Given], _Found], given: Sequence[_Given]) -> list[_Found]:
    """Return what `work` makes of each, at the same time; in turn where forks are not safe.

    A fork ends with this process, however that ends. Raises what `work` raises, and `CatalunyaError` when a fork is killed.
    """
    if sys.platform != "linux":
        return [work(one) for one in given]
    forks: list[tuple[int, int]] = []
    answers = []
    try:
        for one in given:
            forks.append(_begin(work, one))
        for _, pipe in forks:
            with open(pipe, "rb", closefd=False) as file:
                answers.append(file.read())
    finally:
        for child, pipe in forks:
            os.close(pipe)
            # One that is done is not harmed: it is not waited for yet, so its number is not given to another.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    found = []
    for answer in answers:
        if not answer:
            raise CatalunyaError("a process that wrote pages of the site was killed; is there memory enough?")
        is_right, result = pickle.loads(answer)  # noqa: S301 (from our own fork)
        if not is_right:
            raise result
        found.append(result)
    return found


def _begin(work: Callable[[_Given], _Found], one: _Given) -> tuple[int, int]:
    """Start a fork; return its number, and where its answer can be read."""
    answer, own = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        _work(work, one, own, parent)
    os.close(own)
    return child, answer


def _work(work: Callable[[_Given], _Found], one: _Given, own: int, parent: int) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == parent:
            try:
                result = pickle.dumps((True, work(one)))
            except BaseException as error:  # noqa: BLE001 (raised again in the parent)
                error.add_note(traceback.format_exc())
                result = pickle.dumps((False, _portable(error)))
            with open(own, "wb") as file:
                file.write(result)
    finally:
        # Nothing of what the parent would do at its end.
        os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """Return the error, or one with its text where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (whatever its class does)
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
