"""Plugins for the tests, loaded as anybody's are: by their names in a plugins.toml."""
