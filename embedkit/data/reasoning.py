"""Fields of a message that hold its reasoning apart from its content."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""DeepSeek and vLLM write reasoning_content, OpenRouter and later vLLM reasoning, gpt-oss and Ollama thinking."""
PART_FIELDS = ("text", "thinking")
"""Fields with the text of a part, where a reasoning is a list of parts, as OpenAI and Anthropic write content."""
BLANK_LINE = "\n\n"
"""Stands between pieces of a text when they are joined."""
