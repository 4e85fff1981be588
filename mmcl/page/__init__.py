"""Pages for browsers: one that runs a bundle, with a server for this machine alone, and one that plays clips."""
