"""A server as an application of Ray Serve: `antiphon.ray:app`. Needs `ray[serve]`."""
