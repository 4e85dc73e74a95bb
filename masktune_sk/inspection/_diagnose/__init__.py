"""Does a data set have a shortcut? `diagnose_shortcut`, in four steps.

samples -> probes -> what each predicts alone -> whether it is foreign to the rest
"""

from .diagnose import diagnose_shortcut
from .result import ShortcutDiagnosis, ShortcutEvidence

__all__ = ["ShortcutDiagnosis", "ShortcutEvidence", "diagnose_shortcut"]
