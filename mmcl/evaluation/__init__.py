"""Judging a model on clips. An evaluation is one file and one line here."""

from mmcl.common.registry import Registry

EVALUATIONS = Registry(
    "evaluation",
    {
        "top1": "mmcl.evaluation.top1:Top1",
        "transfer": "mmcl.evaluation.transfer:Transfer",
        "groups": "mmcl.evaluation.groups:Groups",
        "open_vocabulary": "mmcl.evaluation.open_vocabulary:OpenVocabulary",
        "cycles": "mmcl.evaluation.cycles:Cycles",
        "knn": "mmcl.evaluation.knn:KNN",
        "linear": "mmcl.evaluation.linear:Linear",
        "few_shot": "mmcl.evaluation.few_shot:FewShot",
        "finetune": "mmcl.evaluation.finetune:Finetune",
        "semi": "mmcl.evaluation.semi:Semi",
        "continual": "mmcl.evaluation.continual:ContinualEvaluation",
        "rejection": "mmcl.evaluation.rejection:Reject",
        "classes": "mmcl.evaluation.open_classes:OpenClasses",
        "faithfulness": "mmcl.evaluation.faithfulness.evaluation:Faithfulness",
        "robustness": "mmcl.evaluation.robustness:Robustness",
    },
    "mmcl.evaluations",
)
