"""From videos to skeletons. A pose estimator is one file and one line here."""

from mmcl.common.registry import Registry

ESTIMATORS = Registry(
    "pose estimator",
    {
        "mediapipe": "mmcl.pose.landmarker:Landmarker",
        "rtmlib": "mmcl.pose.rtm:RTM",
        "file": "mmcl.pose.keypoint_files:KeypointFiles",
    },
    group="mmcl.estimators",
)
