"""One module a command: paths in, files out, run.json."""
