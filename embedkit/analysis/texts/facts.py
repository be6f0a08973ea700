"""Facts about every text of a merged run: keys of equal texts, bytes, and how far a model's text repeats itself."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.texts.batches import text_batches
from embedkit.analysis.texts.repetition import repetition
from embedkit.analysis.texts.work import reading_work
from embedkit.documents import VIEWS
from embedkit.prepare import PYTHON_WHITESPACE, TEXT_COLUMNS, stored_texts, view_texts
from embedkit.progress_clock import as_rows

Keys = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TextFacts:
    """Facts by position in `Merged.rows`: 44 bytes per row.

    prompt_key, answer_key, text_key: 64-bit hashes of the prompt, of the response, and of the text that was embedded in
    this view, uint64 (n,). Texts are stripped of white space at both ends and are otherwise compared to the byte, case
    and inner white space included, since these change the tokens. Equal texts have equal keys. Of 2.3 million distinct
    texts, two have the same key with a probability of 1e-7, so compare texts that you show. Keys are comparable only
    within one version of polars, and are never written.

    prompt_bytes, think_bytes, response_bytes, text_bytes: UTF-8 bytes of these stripped texts, int32 (n,).

    repetition: of the model's text, float32 (n,), as `repetition.repetition` measures it. That text is the think text,
    else the response; prompts repeat themselves by design, as few-shot examples do. In a run of plain text it is the
    text.
    """

    prompt_key: Keys
    answer_key: Keys
    text_key: Keys
    prompt_bytes: Bytes
    think_bytes: Bytes
    response_bytes: Bytes
    text_bytes: Bytes
    repetition: npt.NDArray[np.float32]


def text_facts(merged: Merged, progress: Callable[[int], None] = lambda rows: None) -> TextFacts:
    """Read the texts of all chosen rows once, and hash, count and compress them on two threads.

    progress: called with the number of further rows that are done.

    Raises EmbedkitError naming a damaged file.
    """
    facts = _empty(merged.rows.height)
    expressions = _expressions(merged)
    columns = TEXT_COLUMNS if merged.view in VIEWS else stored_texts(merged.config.request)
    work = reading_work(merged)
    add = as_rows(len(work), int(work.sum()), progress)
    with ThreadPoolExecutor(1) as beside:
        for at, texts in text_batches(merged, columns):
            stripped = texts.with_columns(pl.all().fill_null("")).select(**expressions)
            compressed = beside.submit(repetition, stripped["model"])
            for name, key in (("prompt", facts.prompt_key), ("response", facts.answer_key), ("text", facts.text_key)):
                key[at] = stripped[name].hash(0).to_numpy()
            for name, sizes in _sizes(facts).items():
                sizes[at] = stripped[name].str.len_bytes().to_numpy()
            facts.repetition[at] = compressed.result()
            add(int(work[at].sum()))
    return facts


def model_text() -> pl.Expr:
    """What a model wrote, over the columns of texts: the think text, else the response, else the prompt.

    The prompt counts in plain text alone, since every chat has an answer.
    """
    prompt, think, response = (_stripped(name) for name in TEXT_COLUMNS)
    return pl.when(think != "").then(think).when(response != "").then(response).otherwise(prompt)


def embedded_text(merged: Merged) -> pl.Expr:
    """The text that was embedded in this view, over the columns of texts, without the run's prefix."""
    return view_texts(merged.config.request)[merged.view]


def _expressions(merged: Merged) -> dict[str, pl.Expr]:
    prompt, think, response = (_stripped(name) for name in TEXT_COLUMNS)
    return {
        "prompt": prompt,
        "think": think,
        "response": response,
        "text": embedded_text(merged),
        "model": model_text(),
    }


def _stripped(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars(PYTHON_WHITESPACE)


def _sizes(facts: TextFacts) -> dict[str, Bytes]:
    return {
        "prompt": facts.prompt_bytes,
        "think": facts.think_bytes,
        "response": facts.response_bytes,
        "text": facts.text_bytes,
    }


def _empty(rows: int) -> TextFacts:
    prompt_key, answer_key, text_key = np.zeros((3, rows), np.uint64)
    prompt_bytes, think_bytes, response_bytes, text_bytes = np.zeros((4, rows), np.int32)
    return TextFacts(
        prompt_key=prompt_key,
        answer_key=answer_key,
        text_key=text_key,
        prompt_bytes=prompt_bytes,
        think_bytes=think_bytes,
        response_bytes=response_bytes,
        text_bytes=text_bytes,
        repetition=np.zeros(rows, np.float32),
    )
