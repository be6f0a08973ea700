"""The order of columns in which a thread of the heads' product reads cosines and the norms' weights."""

import pytest
import torch

from embedkit.engines.fused.kernels import by_column, by_thread


def test_a_thread_reads_both_halves_from_one_place() -> None:
    row = by_thread(torch.arange(128)[None])[0].tolist()
    assert row[:6] == [0, 1, 8, 9, 16, 17]
    assert row[16:20] == [64, 65, 72, 73]
    assert row[32:34] == [2, 3]


@pytest.mark.parametrize("dim", [16, 128])
def test_the_original_order_comes_back(dim: int) -> None:
    table = torch.arange(3 * dim).reshape(3, dim)
    assert torch.equal(by_column(by_thread(table)), table)
