"""Looking a clip store over: measures, findings, a verdict, and pictures."""
