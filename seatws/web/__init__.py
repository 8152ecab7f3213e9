"""The edges: sockets, HTTP requests and the page."""
