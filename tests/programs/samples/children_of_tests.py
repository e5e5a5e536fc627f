import multiprocessing

import covered_by_tests
import pytest


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children(method):
    context = multiprocessing.get_context(method)
    process = context.Process(target=getattr(covered_by_tests, method))
    process.start()
    process.join()
    assert process.exitcode == 0
