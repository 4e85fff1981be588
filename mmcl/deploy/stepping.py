"""A causal model step by step: raw joints of the next frames in, what it says of all frames so far out, with a state.

:class:`StepGraph` is the function, in PyTorch and as the ONNX graph ``model.step.onnx``. What is kept between two steps
goes out and comes in again as tensors by name, and begins as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.deploy.continual import SHARED, State, Stepper
from mmcl.deploy.stream import Ranking
from mmcl.encoders.base import continual_form
from mmcl.encoders.continual import Continual
from mmcl.encoders.counting import count_products
from mmcl.models.model import Model
from mmcl.skeletons.frames import FramePreprocess, not_of_a_stream


class StepGraph(nn.Module):
    """A causal model as one function of the next frames (B, step, V, C) and of what is kept.

    Args:
        model: of which everything is copied.

    Attributes:
        network: the encoder's form that goes step by step.
        kept: names of what is kept, in the order in which it comes in and goes out.
        outputs: names of what is said: probabilities and scores (1, K), embedding (1, E) where there is a text head,
            familiarity (1,) where the model says how familiar a clip looks.

    Raises:
        UserError: the model sees whole clips alone, or its preprocessing does.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        network = continual_form(model.encoder)
        if network is None:
            raise UserError(
                "this model sees whole windows: one that goes frame by frame is trained with `--encoder.causal=true` "
                "(ctrgcn), and no surgery has changed its modules"
            )
        self.network: Continual = network
        self.preprocess, self.text_head = FramePreprocess(model.preprocess), model.text_head
        self.familiarity = model.familiarity
        self.kept = list(self.begin(1))
        more = {"embedding": self.text_head, "familiarity": self.familiarity}
        self.outputs = ["probabilities", "scores", *(name for name, part in more.items() if part is not None)]
        self.eval()

    def begin(self, bodies: int) -> dict[str, Tensor]:
        """What is kept before the first frame, for so many bodies: zeros."""
        phase = self.preprocess.whole.centre.new_zeros(1, dtype=torch.int64)
        return {"phase": phase, "origin": self.preprocess.begin(), **self.network.begin(bodies)}

    def feature(self, joints: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The next frames and what is kept -> feature (1, D) of all frames so far, and what is kept now."""
        x, origin = self.preprocess(joints, state["origin"])
        feature, kept = self.network(x, state["phase"], {name: state[name] for name in self.kept[len(SHARED) :]})
        return feature[None], {"phase": state["phase"] + 1, "origin": origin, **kept}

    def forward(self, joints: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next frames and what is kept, in order -> :attr:`outputs`, then what is kept now, in order."""
        feature, kept = self.feature(joints, dict(zip(self.kept, state, strict=True)))
        scores = self.network.head(feature)
        said = [scores.softmax(dim=-1), scores]
        if self.text_head is not None:
            said.append(self.text_head.embed(feature))
        if self.familiarity is not None:
            said.append(self.familiarity(feature, scores))
        return (*said, *(kept[name] for name in self.kept))


def goes_step_by_step(model: Model) -> bool:
    """Whether a model can be used step by step: its network and its preprocessing know no future."""
    return not not_of_a_stream(model.preprocess.options) and continual_form(model.encoder) is not None


class TorchStepper(Stepper):
    """A causal model in PyTorch, step by step.

    Args:
        graph: of the model.
        judged: feature (1, D) -> ranking.
    """

    def __init__(self, graph: StepGraph, judged: Callable[[Tensor], Ranking]) -> None:
        self.graph, self.judged = graph, judged
        network, whole = graph.network, graph.preprocess.whole
        self.step, self.forget, self.persons = network.step, network.forget, network.persons
        self.frame = (whole.source.joint_count, whole.columns)
        super().__init__()

    def zeros(self, bodies: int) -> State:
        """What is kept before the first frame, for so many bodies."""
        return dict(self.graph.begin(bodies))

    @torch.no_grad()
    def run(self, joints: np.ndarray, state: State) -> tuple[Ranking, State]:
        """The next frames (B, step, V, C) -> ranking, and what is kept."""
        feature, kept = self.graph.feature(torch.from_numpy(joints).to(state["origin"].device), state)
        return self.judged(feature), dict(kept)

    def joined(self, rows: Sequence[Tensor]) -> Tensor:
        """Tensors one below the other."""
        return torch.cat(list(rows))


@torch.no_grad()
def products_of_steps(network: Continual, x: Tensor, window: int) -> list[int]:
    """Multiply-accumulates of each step of a window of frames, as ``count_macs`` counts a clip's.

    Args:
        network: counted as it is.
        x: (B, step, V, C) of the bodies that are there.
        window: frames.
    """
    state, found = network.begin(len(x)), []
    for number in range(max(1, window // network.step)):
        phase = torch.tensor([number], device=x.device)
        found.append(count_products(network, x, phase, state))
        state = network(x, phase, state)[1]
    return found


def macs_a_frame(model: Model) -> float:
    """Multiply-accumulates of a frame in a stream with all bodies: the mean over the frames of a window."""
    network, window = continual_form(model.encoder), model.preprocess.options.window
    assert network is not None, "goes_step_by_step"
    x = torch.ones_like(model.encoder.example(network.step))[0]
    products = products_of_steps(network, x, window)
    return sum(products) / (len(products) * network.step)
