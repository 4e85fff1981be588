"""What is trained, and with which losses. A task is one file and one line here."""

from mmcl.common.registry import Registry

TASKS = Registry(
    "task",
    {
        "supervised": "mmcl.tasks.supervised:Supervised",
        "colearn": "mmcl.tasks.colearn.task:CoLearning",
    },
    "mmcl.tasks",
)
