"""Names of the roles of a message, in any case. Only who answers matters: whatever comes before it is the prompt."""

ASSISTANT = ("assistant", "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "function_call")
"""Names for who answers: of OpenAI, of ShareGPT, of Gemini; function_call is LLaMA-Factory's for a call of a tool."""


def chat_role(role: str | None) -> str | None:
    """`assistant` for all names of who answers; any other role as it is."""
    return "assistant" if role is not None and role.strip().lower() in ASSISTANT else role
