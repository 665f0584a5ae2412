"""Export: heads as Gaussian splats for other programs, still or moving, and a viewer that shows them in a browser."""

from sdtalk.export.files import MISSING, SUFFIXES, Exported, check_export, export_head, export_talk
from sdtalk.export.page import viewer_frame, viewer_page

__all__ = [
    "MISSING",
    "SUFFIXES",
    "Exported",
    "check_export",
    "export_head",
    "export_talk",
    "viewer_frame",
    "viewer_page",
]
