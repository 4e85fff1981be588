"""Skeletons as tensors: layouts, conversion, windows, streams, augmentation. An augmentation is one line here."""

from mmcl.common.registry import Registry

# They are applied in this order. Each owns the keys of its fields in the section `augmentation` of a recipe.
AUGMENTATIONS = Registry(
    "augmentation",
    {
        "crop": "mmcl.skeletons.augmentations.crop:Crop",
        "rotation": "mmcl.skeletons.augmentations.coordinates:Rotation",
        "shear": "mmcl.skeletons.augmentations.coordinates:Shear",
        "scale": "mmcl.skeletons.augmentations.coordinates:Scale",
        "flip": "mmcl.skeletons.augmentations.exchanges:Flip",
        "noise": "mmcl.skeletons.augmentations.coordinates:Noise",
        "swap": "mmcl.skeletons.augmentations.exchanges:Swap",
    },
    "mmcl.augmentations",
)
