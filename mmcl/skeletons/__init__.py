"""Skeletons as tensors: layouts, conversion, windows, streams, augmentation. An augmentation is one line here."""

from mmcl.common.registry import Registry

# They are applied in this order. Each owns the keys of its fields in the section `augmentation` of a recipe.
AUGMENTATIONS = Registry(
    "augmentation",
    {
        "crop": "mmcl.skeletons.augmentations:Crop",
        "rotation": "mmcl.skeletons.augmentations:Rotation",
        "shear": "mmcl.skeletons.augmentations:Shear",
        "scale": "mmcl.skeletons.augmentations:Scale",
        "flip": "mmcl.skeletons.augmentations:Flip",
        "noise": "mmcl.skeletons.augmentations:Noise",
        "swap": "mmcl.skeletons.augmentations:Swap",
    },
    "mmcl.augmentations",
)
