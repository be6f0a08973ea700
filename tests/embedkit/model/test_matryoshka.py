"""What model folders say about dimensions that may be cut."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedkit.errors import UsageError
from embedkit.model import read_matryoshka

CARD = """---
tags:
- sentence-transformers
- loss:MatryoshkaLoss
---
# A model
* Loss: MatryoshkaLoss with these parameters:
  ```json
  {
      "loss": "MultipleNegativesRankingLoss",
      "matryoshka_dims": [
          768,
          256,
          64
      ]
  }
  ```
"""


def found(folder: Path, **files: object) -> tuple[str, str, tuple[int, ...]] | None:
    for name, value in files.items():
        path = folder / (f"{name}.json" if name != "card" else "README.md")
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    says = read_matryoshka(folder)
    return says and (says.file.name, says.what, says.dimensions)


def test_vllms_keys_in_the_configuration(tmp_path: Path) -> None:
    says = ("config.json", "matryoshka_dimensions", (32, 64, 1024))
    assert found(tmp_path, config={"matryoshka_dimensions": [64, 32, 1024], "is_matryoshka": True}) == says
    assert found(tmp_path, config={"is_matryoshka": True}) == ("config.json", "is_matryoshka", ())


@pytest.mark.parametrize(
    "value", [{}, {"is_matryoshka": False}, {"matryoshka_dimensions": []}, {"is_matryoshka": "no"}]
)
def test_a_configuration_that_says_nothing(value: object, tmp_path: Path) -> None:
    assert found(tmp_path, config=value) is None


def test_a_model_that_cuts_its_own_vectors(tmp_path: Path) -> None:
    says = ("config_sentence_transformers.json", "truncate_dim", (256,))
    assert found(tmp_path, config_sentence_transformers={"truncate_dim": 256}) == says
    assert found(tmp_path, config_sentence_transformers={"truncate_dim": None}) is None


def test_the_card_that_sentence_transformers_writes(tmp_path: Path) -> None:
    assert found(tmp_path, card=CARD) == ("README.md", "tag loss:MatryoshkaLoss", (64, 256, 768))


@pytest.mark.parametrize(
    "card",
    [
        "---\ntags:\n- sentence-transformers\n---\nThis is no matryoshka model.\n",
        "# loss:MatryoshkaLoss\n- matryoshka\n",
        "",
    ],
)
def test_prose_about_matryoshka_is_not_trusted(card: str, tmp_path: Path) -> None:
    assert found(tmp_path, card=card) is None


def test_the_demo_model_says_nothing(minilm: Path) -> None:
    assert read_matryoshka(minilm) is None


@pytest.mark.slow
def test_the_list_of_dimensions_has_the_name_that_the_loss_gives(tmp_path: Path) -> None:
    """sentence-transformers writes the settings of a loss into the card as JSON."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    loss = SimpleNamespace(matryoshka_dims=[64, 32], matryoshka_weights=[1, 1], n_dims_per_step=-1, loss=object())
    settings = json.dumps(MatryoshkaLoss.get_config_dict(loss), indent=4)
    card = f"---\ntags:\n- loss:MatryoshkaLoss\n---\n```json\n{settings}\n```\n"
    assert found(tmp_path, card=card) == ("README.md", "tag loss:MatryoshkaLoss", (32, 64))


def test_a_configuration_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json: not valid JSON"):
        found(tmp_path, config="{")
