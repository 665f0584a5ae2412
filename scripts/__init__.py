"""Programs for those who work on SDTalk; not part of the package."""
