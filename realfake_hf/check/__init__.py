"""Judge images on the command line: one line each, tables, and a report page."""
