"""Products are counted alike, whichever way they are written."""

from __future__ import annotations

import torch

from mmcl.encoders.counting import count_products_of


def test_products_that_are_added_up_in_place_count_as_others():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    y = torch.zeros(2, 3, 5)
    batched = [lambda: torch.bmm(a, b), lambda: torch.baddbmm(y, a, b), lambda: y.baddbmm_(a, b)]
    assert [count_products_of(call) for call in batched] == [2 * 3 * 4 * 5] * 3
    single = [lambda: torch.mm(a[0], b[0]), lambda: torch.addmm(y[0], a[0], b[0]), lambda: y[0].addmm_(a[0], b[0])]
    assert [count_products_of(call) for call in single] == [3 * 4 * 5] * 3


def test_the_backward_pass_of_a_product_that_is_added_up_in_place_counts_too():
    a, b = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    forward_and_backward = 3 * 2 * 3 * 4 * 5
    assert count_products_of(lambda: (a @ b).sum().backward()) == forward_and_backward
    assert count_products_of(lambda: torch.zeros(2, 3, 5).baddbmm_(a, b).sum().backward()) == forward_and_backward
