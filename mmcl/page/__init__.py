"""A page that runs a bundle wholly in the browser: its static files, and a server for this machine alone."""
