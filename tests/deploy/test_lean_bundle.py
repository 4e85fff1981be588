"""A loaded model computes its encoder's lean form, and never that of other weights."""

from __future__ import annotations

import copy
import pickle

import torch
from making import write_small


def test_a_loaded_model_computes_the_lean_form_of_the_weights_it_has_now(tmp_path) -> None:
    model = write_small(tmp_path / "bundle")
    clips = torch.randn(3, 2, 30, 20, 3)
    clips[1, 1] = 0
    for _ in range(2):
        with torch.no_grad():
            x = model.preprocess(clips)
            torch.testing.assert_close(model.features(clips), model.encoder.features(x), rtol=1e-5, atol=1e-5)
            lean = model._lean_encoder()
            assert lean is model._lean_encoder() and not torch.equal(model(clips), model(clips.flip(2)))
            for parameter in model.encoder.parameters():
                parameter.mul_(1.1)  # the second time around, the weights are other ones
    assert model._lean_encoder() is not lean
    assert not model(clips).requires_grad and model(clips, grad=True).requires_grad  # only where they are asked for


def test_a_model_that_has_been_used_is_copied_pickled_and_turned_to_other_numbers(tmp_path) -> None:
    model, clips = write_small(tmp_path / "bundle"), torch.randn(2, 2, 30, 20, 3)
    clips[1, 1] = 0
    with torch.no_grad():
        scores = model(clips)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other(clips), scores)
        torch.testing.assert_close(model.double()(clips.double()), scores.double(), rtol=1e-4, atol=1e-4)


def test_a_lean_form_that_is_given_other_constants_knows_no_empty_body_of_before(tmp_path) -> None:
    encoder, x = write_small(tmp_path / "bundle").encoder, torch.randn(1, 2, 24, 25, 3)
    x[0, 1] = 0
    lean = encoder.lean(24)
    for parameter in encoder.parameters():
        parameter.data.mul_(1.1)
    lean.load_state_dict(encoder.lean(24).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(lean(x), encoder(x), rtol=1e-4, atol=1e-4)
