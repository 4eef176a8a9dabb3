"""The documentation: `make docs` builds these pages into build/docs; see CONTRIBUTING.md."""
