import torch

from service.detection.calibration import Calibration
from tests.training.attacks.adaptive.toys import Digits, generator
from training.attacks.adaptive import Denial, Loop


def test_clean_images_become_more_suspicious_inside_the_ball(digits: Digits) -> None:
    raised = Denial(loop=Loop(eps=0.1, steps=10, restarts=2))(digits.target, digits.images, generator())
    with torch.no_grad():
        _, clean = digits.target(digits.images)
        _, again = digits.target(raised.images)
    assert (raised.scores > clean).all()
    assert torch.allclose(raised.scores, again, rtol=1e-4)
    assert (raised.images - digits.images).abs().max() <= 0.1 + 1e-6
    assert torch.allclose(raised.trace[0, 0], clean, rtol=1e-4)
    assert torch.equal(raised.trace.amax(dim=(0, 1)), raised.scores)


def test_more_are_rejected_than_at_first(digits: Digits) -> None:
    calibration: Calibration = digits.calibration
    threshold = float(calibration.fused_scores[-10])
    raised = Denial(loop=Loop(eps=0.1, steps=10))(digits.target, digits.images, generator())
    assert raised.rejected(threshold).sum() > (raised.trace[0, 0] > threshold).sum()


def test_the_target_is_held_in_eval_mode(digits: Digits) -> None:
    before = {name: value.clone() for name, value in digits.target.state_dict().items()}
    digits.target.graph.train()
    try:
        Denial(loop=Loop(eps=0.1, steps=2))(digits.target, digits.images, generator())
        assert digits.target.graph.training
    finally:
        digits.target.eval()
    assert all(torch.equal(value, before[name]) for name, value in digits.target.state_dict().items())
