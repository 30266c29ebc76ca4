"""Every picture of the project, each a function of plain arrays. Only the leaves of the house are imported here."""
