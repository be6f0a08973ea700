"""Export the vectors of a merged run: in fewer dimensions or bits, as files that other tools open."""

from embedkit.export.forms import DTYPES
from embedkit.export.record import Export, Recall, Target
from embedkit.export.stage import Exported, ExportOptions, export

__all__ = ["DTYPES", "Export", "ExportOptions", "Exported", "Recall", "Target", "export"]
