"""``mmcl bench gpu``: everything that needs a GPU to be measured, in one go."""
