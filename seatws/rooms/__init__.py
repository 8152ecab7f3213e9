"""Rooms: what each viewer should see, and the way it gets there."""
