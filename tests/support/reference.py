"""The rules in their plainest form: slow, obvious, and sharing no code with the product."""

import re
from typing import Any, Literal

FIELDS = ("reasoning_content", "reasoning", "thinking")
FORMS = [  # opening and closing tag of the reasoning, then of the response
    ("<think>", "</think>", "", ""),
    ("<seed:think>", "</seed:think>", "", ""),
    ("<mm:think>", "</mm:think>", "", ""),
    ("[THINK]", "[/THINK]", "", ""),
    ("◁think▷", "◁/think▷", "", ""),
    ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|channel>thought", "<channel|>", "", ""),
    ("<thinking>", "</thinking>", "", ""),
    ("<thought>", "</thought>", "", ""),
    ("<reasoning>", "</reasoning>", "", ""),
]
QUOTES = "\"'`“”„«»\u2018\u2019"


def extract_row(
    messages: list[dict[str, Any] | None] | None, think_format: Literal["classic", "any"] = "classic"
) -> dict[str, Any] | None:
    """The texts of one chat, or None if it has no answer."""
    chat = [message or {} for message in messages or []]
    assistants = [i for i, message in enumerate(chat) if message.get("role") == "assistant"]
    if not assistants:
        return None
    message = chat[assistants[-1]]
    answer = message.get("content") or ""
    prompt = "\n\n".join(message.get("content") or "" for message in chat[: assistants[-1]])
    think, response = "", answer
    if "<think>" in answer and "</think>" in answer:
        opening, closing = answer.index("<think>"), answer.index("</think>")
        think = answer[opening + len("<think>") : closing].strip() if opening < closing else ""
        response = answer[closing + len("</think>") :].strip()
    elif think_format == "any":
        think, response = split_any(answer)
    if think_format == "any":
        parts = [(message.get(field) or "").strip() for field in FIELDS] + [think]
        think = "\n\n".join(part for part in dict.fromkeys(parts) if part)
    if not answer and not think:
        return None
    return {
        "user_prompt": prompt,
        "think_text": think,
        "response_text": response,
        "num_turns": len(assistants),
        "combined": "\n\n".join([prompt, think, response]).strip(),
    }


def split_any(answer: str) -> tuple[str, str]:
    """(think, response) of an answer without both <think> and </think>."""
    channels = split_channels(answer)
    if channels is not None:
        return channels
    for form in FORMS:
        found = split_tags(answer, *form)
        if found is not None:
            return found
    return "", answer


def split_tags(answer: str, opening: str, closing: str, outer: str, end: str) -> tuple[str, str] | None:
    """(think, response) if the tags fit the answer."""
    start = first_mark(answer, opening)
    if start is not None:
        before, rest = answer[:start], answer[start + len(opening) :]
        stop = find(rest, closing)
        if stop is not None and before.count("```") % 2 == 0:
            after = unwrap(rest[stop + len(closing) :], outer, end)
            return rest[:stop].strip(), "\n\n".join(text for text in (before.strip(), after) if text)
        if stop is None and not before.strip():
            return rest.strip(), ""
    start = first_mark(answer, closing)
    if start is not None and find(answer[:start], opening) is None and answer[:start].count("```") % 2 == 0:
        return answer[:start].strip(), unwrap(answer[start + len(closing) :], outer, end)
    return None


def unwrap(text: str, outer: str, end: str) -> str:
    text = text.strip()
    if outer and text[: len(outer)].upper() == outer.upper():
        text = text[len(outer) :]
    if end and text[-len(end) :].upper() == end.upper():
        text = text[: -len(end)]
    return text.strip()


def find(text: str, tag: str) -> int | None:
    found = re.search(re.escape(tag), text, re.IGNORECASE | re.ASCII)
    return found.start() if found else None


def first_mark(text: str, tag: str) -> int | None:
    """Where the first such tag is that is no word of a sentence."""
    for found in re.finditer(re.escape(tag), text, re.IGNORECASE | re.ASCII):
        before, after = text[: found.start()], text[found.end() :]
        begins_line = not before.split("\n")[-1].strip()
        ends_line = not after.split("\n")[0].strip()
        follows = not begins_line and (before[-1].isspace() or before[-1] in QUOTES + "([{")
        goes_on = not ends_line and (after[0].isspace() or after[0] in QUOTES + ")]}.,:;!?…")
        if not (follows and goes_on):
            return found.start()
    return None


def split_channels(answer: str) -> tuple[str, str] | None:
    """(think, response) if the answer is messages of harmony."""
    first, *messages = answer.split("<|channel|>")
    if not messages or not re.fullmatch(r"(<\|start\|>[^<\n]*)?", first.lstrip()):
        return None
    texts: dict[bool, list[str]] = {True: [], False: []}
    for message in messages:
        header = re.match(r"([A-Za-z]+)[^<\n]*(<\|constrain\|>[^<\n]*)?<\|message\|>", message)
        if header is None:
            return None
        text = re.sub(r"<\|start\|>[^<\n]*\Z", "", message[header.end() :]).rstrip()
        for end in ("<|end|>", "<|return|>", "<|call|>"):
            if text.endswith(end):
                text = text[: -len(end)]
                break
        texts[header[1] == "final"].append(text.strip())
    think, response = ("\n\n".join(filter(None, texts[is_final])) for is_final in (False, True))
    return think, response
