"""Facts about the texts of a merged run, from one pass over them."""

from embedkit.analysis.texts.facts import TextFacts, text_facts

__all__ = ["TextFacts", "text_facts"]
