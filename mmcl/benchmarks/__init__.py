"""Measurements that ``mmcl bench`` makes: one file a subject, each with a command line of its own."""
