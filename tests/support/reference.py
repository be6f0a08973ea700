"""The rules in their plainest form: slow, obvious, and sharing no code with the product."""

from typing import Any


def extract_row(messages: list[dict[str, Any] | None] | None) -> dict[str, Any] | None:
    """The texts of one chat, or None if it has no answer."""
    chat = [message or {} for message in messages or []]
    assistants = [i for i, message in enumerate(chat) if message.get("role") == "assistant"]
    if not assistants or not chat[assistants[-1]].get("content"):
        return None
    answer = chat[assistants[-1]]["content"]
    prompt = "\n\n".join(message.get("content") or "" for message in chat[: assistants[-1]])
    think, response = "", answer
    if "<think>" in answer and "</think>" in answer:
        opening, closing = answer.index("<think>"), answer.index("</think>")
        think = answer[opening + len("<think>") : closing].strip() if opening < closing else ""
        response = answer[closing + len("</think>") :].strip()
    return {
        "user_prompt": prompt,
        "think_text": think,
        "response_text": response,
        "num_turns": len(assistants),
        "combined": "\n\n".join([prompt, think, response]).strip(),
    }
