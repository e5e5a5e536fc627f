import procession as multiprocessing

import pytest


@pytest.mark.parametrize("number", range(8))
def test_starts_a_process(number):
    process = multiprocessing.Process(target=abs, args=(number,))
    process.start()
    process.join()
    assert process.exitcode == 0
