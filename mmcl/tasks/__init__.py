"""What is trained, and with which losses. A task is one file and one line here."""

from mmcl.common.registry import Registry

TASKS = Registry(
    "task",
    {
        "supervised": "mmcl.tasks.supervised:Supervised",
        "masked_motion": "mmcl.tasks.masked_motion.task:MaskedMotion",
        "neighbour_contrast": "mmcl.tasks.neighbour_contrast.task:NeighbourContrast",
        "continual": "mmcl.tasks.continual.task:Continual",
        "long_tail": "mmcl.tasks.long_tail.task:LongTail",
        "sa_dvae": "mmcl.tasks.sa_dvae.task:SADVAE",
        "part_texts": "mmcl.tasks.part_texts.task:PartTexts",
        "colearn": "mmcl.tasks.colearn.task:CoLearning",
    },
    "mmcl.tasks",
)
