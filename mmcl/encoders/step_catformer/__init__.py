"""STEP-CATFormer (Long et al., BMVC 2023): CTR-GCN, attention between halves of the body and over time, text heads."""

from mmcl.encoders.step_catformer.network import StepCATFormer, StepCATFormerOptions

__all__ = ["StepCATFormer", "StepCATFormerOptions"]
