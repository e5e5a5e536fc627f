"""A queue against a deque: whatever the sizes and the order of puts and gets."""

from __future__ import annotations

import collections
import contextlib
import queue

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procession
from procession import queues

BUDGET = 4 * 1024 * 1024

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=70),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.frozensets(st.integers(), max_size=3),
    ),
    max_leaves=12,
)
sizes = st.one_of(st.integers(0, 300), st.integers(4000, 70_000), st.integers(100_000, 1_500_000))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), values),
        st.tuples(st.just("bytes"), sizes),
        st.tuples(st.just("get"), st.integers(1, 6)),
        st.tuples(st.just("drain"), st.none()),
    ),
    max_size=60,
)


def same(one, other):
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps, maxsize=st.sampled_from((0, 0, 1, 5)))
def test_it_does_what_a_deque_does(steps, maxsize):
    model = collections.deque()
    tried = procession.get_context("forkserver").JoinableQueue(maxsize, max_bytes=BUDGET)
    put = 0
    try:
        for step, detail in steps:
            if step in ("put", "bytes"):
                item = bytes([put % 251]) * detail if step == "bytes" else detail
                try:
                    tried.put(item, False)
                except queue.Full:
                    assert 0 < maxsize == len(model)
                except MemoryError:  # half of the budget is always of use
                    held = sum(len(it) for it in model if isinstance(it, bytes))
                    assert held + len(item) > BUDGET // 2 - 100_000
                else:
                    model.append(item)
                    put += 1
                    assert not maxsize or len(model) <= maxsize
            else:
                for _ in range(detail or len(model)):
                    with contextlib.suppress(IndexError):
                        expected = model.popleft()
                        assert same(tried.get(False), expected)
                        tried.task_done()
                if not model:
                    try:
                        tried.get(False)
                    except queue.Empty:
                        pass
                    else:
                        raise AssertionError("something came out of an empty queue")
            assert tried.qsize() == len(model)
            assert tried.empty() == (not model)
            assert tried.full() == (maxsize > 0 and len(model) == maxsize)
        tried.shutdown()
        assert all(map(same, tried, model))
        assert tried._stat()[1] == len(model)
    finally:
        tried.close()


def test_the_codec_keeps_what_is_shared():
    tried = procession.get_context("forkserver").Queue()
    one = [1]
    holder = ([],)
    ring = []
    ring.append(ring)
    tried.put([one, one])
    tried.put((holder, holder))
    tried.put(ring)
    first, second = tried.get()
    assert first is second
    first, second = tried.get()
    assert first[0] is second[0]
    loop = tried.get()
    assert loop[0] is loop
    assert isinstance(tried, queues.Queue)
    tried.close()
