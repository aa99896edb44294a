import threading
from itertools import count, islice

import pytest
import torch

from realfake_hf import parallel
from realfake_hf.parallel import map_in_threads


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_come_in_order(n, workers):
    assert list(map_in_threads(lambda item: item * item, range(n), workers=workers)) == [item**2 for item in range(n)]


def test_items_are_computed_concurrently():
    both = threading.Barrier(2)
    assert list(map_in_threads(lambda _: both.wait(timeout=20) >= 0, range(2))) == [True, True]


def test_each_item_has_one_thread_of_pytorch_and_an_item_alone_has_all():
    def threads(_):
        return torch.get_num_threads()

    assert list(map_in_threads(threads, range(5))) == [1] * 5
    assert list(map_in_threads(threads, range(1))) == [2]
    assert list(map_in_threads(threads, range(1), workers=1)) == [1]


def test_the_threads_of_pytorch_are_restored_after_success_errors_and_early_exit():
    def threads_of_a_new_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    list(map_in_threads(abs, range(9)))
    assert torch.get_num_threads() == threads_of_a_new_thread() == 2
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // (item - 3), range(9)))
    assert threads_of_a_new_thread() == 2
    unfinished = map_in_threads(abs, count())
    assert next(unfinished) == 0
    assert torch.get_num_threads() == 2  # of the caller, in the middle of it
    unfinished.close()
    assert threads_of_a_new_thread() == 2


def test_an_endless_iterator_is_drawn_from_lazily():
    taken = []
    results = map_in_threads(abs, (taken.append(item) or item for item in count()))
    assert list(islice(results, 10)) == list(range(10))
    assert len(taken) <= 10 + 2
    results.close()
