"""What is not of the field: errors, files, devices, processes, registries, fonts."""
