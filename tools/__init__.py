"""Tools of the repository, which read and write files of a checkout."""
