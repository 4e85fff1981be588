"""From a raw dataset folder to a clip store: parallel, resumable, sharded."""
