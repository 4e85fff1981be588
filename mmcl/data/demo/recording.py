"""Recording a scene: the joints that the sensor reports, and the video that its camera takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.demo.body import JOINT, LAYOUT, Array
from mmcl.data.demo.figures import Figure, Shape, prop_shapes
from mmcl.data.demo.props import FRAME_RATE, PROPS, place
from mmcl.data.demo.render import film
from mmcl.data.demo.scene import Scene
from mmcl.data.opening import local_name
from mmcl.skeletons.layout import load_layout

QUANTISER, FF_QP2LAMBDA = 3, 118  # of 1 to 31; FFmpeg counts quality in lambda units


def observe(scene: Scene) -> np.ndarray:
    """What the sensor reports: (M, T, V, 3) float32 in camera space, with its noise, in its own layout."""
    sensor, rng = scene.sensor, np.random.default_rng([*scene.key, 2])
    joints = np.stack([scene.view.to_camera(body) for body in scene.bodies])
    chosen = [JOINT[name] for name in load_layout(sensor.layout).joints]
    noise = rng.normal(0, sensor.noise, (len(joints), joints.shape[1], LAYOUT.joint_count, 3)) * [1, 1, 2]
    return (joints + noise)[:, :, chosen].astype(np.float32)


def shapes(scene: Scene) -> tuple[list[Shape], list[Shape]]:
    """What the camera sees: shapes of the people, shapes of the object they hold."""
    camera = scene.sensor.intrinsics
    people = [
        shape
        for person, body in zip(scene.people, scene.bodies, strict=True)
        for shape in Figure(person, scene.view.to_camera(body), camera).shapes
    ]
    if not scene.action.held:
        return people, []
    origins, turns = place(scene.action.held, scene.bodies[0], scene.people[0].hand, scene.heading)
    return people, prop_shapes(PROPS[scene.action.held], origins, turns, scene.view, camera)


def frames(scene: Scene) -> Iterable[np.ndarray]:
    """The picture: one frame (height, width, 3) uint8 for each skeleton frame."""
    people, held = shapes(scene)
    feet: list[Array] = [scene.view.to_camera(body[:, JOINT["base_spine"]] * [1, 0, 1]) for body in scene.bodies]
    return film([*people, *held], feet, scene.view, scene.sensor.intrinsics, scene.light)


def write_video(path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Encode pictures (height, width, 3) uint8 as MPEG-4 part 2, which every FFmpeg has, the same bytes each time."""
    import av

    with av.open(local_name(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("mpeg4", rate=int(FRAME_RATE), options={"flags": "+bitexact+qscale"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.global_quality = QUANTISER * FF_QP2LAMBDA
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
