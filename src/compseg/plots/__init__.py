"""Every picture that compseg draws."""
