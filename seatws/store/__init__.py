"""All that talks to Redis: the connection, the scripts that decide, the feed of events."""
