"""Plugins that come with the server. Your own may lie here or in any package that imports."""
