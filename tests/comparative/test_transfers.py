"""Sigma, trapezoid and identity against textbook formulas, golden values and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from compseg.comparative import Identity, Sigma, Trapezoid
from compseg.errors import CompsegError

alphas = st.floats(0.01, 1)
betas = st.floats(0.5, 20)
gammas = st.floats(1e-4, 0.05)


def logistic_form(x, alpha=0.1, beta=5.0, gamma=0.001):
    return alpha * (2 * expit(beta * np.asarray(x, dtype=np.float64) / alpha) - 1) + gamma * np.asarray(x)


def slope(transfer, x):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(transfer(x), x)[0].item()


# Golden values at the paper's alpha = .1, beta = 5, gamma = .001, computed by hand from the logistic form.
@pytest.mark.parametrize(("x", "o"), [(0, 0), (0.01, 0.024502), (0.05, 0.084878), (0.1, 0.098761), (0.5, 0.100500)])
def test_sigma_values_of_the_paper(x, o):
    assert Sigma()(torch.tensor(float(x), dtype=torch.float64)).item() == pytest.approx(o, abs=5e-7)


@pytest.mark.parametrize(("x", "expected"), [(0.0, 2.501), (0.1, 0.0675), (0.2, 1.45e-3), (0.5, 1.00e-3)])
def test_sigma_slopes_of_the_paper(x, expected):
    assert slope(Sigma(), x) == pytest.approx(expected, rel=5e-3)


@given(st.floats(0, 1), alphas, betas, gammas)
def test_sigma_is_the_logistic_form_that_is_0_at_0(x, alpha, beta, gamma):
    o = Sigma(alpha, beta, gamma)(torch.tensor(x, dtype=torch.float64)).item()
    assert o == pytest.approx(logistic_form(x, alpha, beta, gamma), rel=1e-9, abs=1e-12)


def test_sigma_gradient_against_finite_differences():
    x = torch.linspace(0, 1, 41, dtype=torch.float64, requires_grad=True)
    for transfer in (Sigma(), Sigma(0.5, 1.0, 0.1)):
        assert torch.autograd.gradcheck(transfer, (x,))
    inner = torch.tensor([0.01, 0.04, 0.06, 0.4, 0.84, 0.86, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Trapezoid(), (inner,))  # away from its corners


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values", [(0.1, 5.0, 0.001), (1e-3, 100.0, 0.001), (1.0, 0.5, 0.05)])
def test_sigma_keeps_the_precision_of_its_type(dtype, values):
    x = torch.linspace(0, 1, 257).to(dtype)
    o = Sigma(*values)(x)
    assert o.dtype == dtype
    expected = logistic_form(x.double().numpy(), *values)
    # A rounding of each of the argument, tanh, its product and the sum.
    np.testing.assert_allclose(o.double().numpy(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-7)


def test_sigma_has_a_gradient_in_its_flattest_corner():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        Sigma(alpha=1e-3, beta=100.0)(x).backward()
        assert x.grad.item() == pytest.approx(0.001, rel=0.01)


def test_crossing_at_the_papers_values():
    assert Sigma().crossing == pytest.approx(0.144624, abs=5e-7)
    assert Sigma().maximum == pytest.approx(0.101, abs=1e-9)
    # The crossing moves in proportion to alpha.
    for alpha, crossing in ((0.05, 0.0723), (0.2, 0.289), (0.3, 0.434)):
        assert Sigma(alpha).crossing == pytest.approx(crossing, abs=5e-4)


@given(alphas, betas, gammas)
def test_crossing_is_the_root_and_parts_below_from_above_alpha(alpha, beta, gamma):
    sigma = Sigma(alpha, beta, gamma)
    root = brentq(lambda x: logistic_form(x, alpha, beta, gamma) - alpha, 0, 2 * alpha / gamma)
    assert sigma.crossing == pytest.approx(root, rel=1e-6)
    below, above = sigma(torch.tensor([0.99 * root, 1.01 * root], dtype=torch.float64))
    assert below < alpha < above


def test_without_gamma_alpha_is_a_true_bound():
    sigma = Sigma(gamma=0.0)
    assert sigma.crossing == math.inf
    assert sigma(torch.linspace(0, 1, 100, dtype=torch.float64)).max() <= sigma.alpha


@given(alphas, betas, gammas, st.floats(0.1, 10))
def test_only_two_ratios_act(alpha, beta, gamma, factor):
    """Sigma / alpha depends on k = alpha / beta and r = gamma / alpha alone."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    one, other = Sigma(alpha, beta, gamma), Sigma(factor * alpha, factor * beta, factor * gamma)
    torch.testing.assert_close(one(x) / one.alpha, other(x) / other.alpha)


def test_how_soon_sigma_is_satisfied():
    k = 0.1 / 5
    half, most = (Sigma(gamma=0.0)(torch.tensor(c * k, dtype=torch.float64)).item() / 0.1 for c in (1.0986, 2.9444))
    assert half == pytest.approx(0.5, abs=1e-4)
    assert most == pytest.approx(0.9, abs=1e-4)


@given(st.floats(0, 1), st.floats(0.01, 0.45), st.floats(0, 0.5))
def test_trapezoid_is_a_trapezoid(x, alpha, beta):
    o = Trapezoid(alpha, beta)(torch.tensor(x, dtype=torch.float64)).item()
    assert o == pytest.approx(np.interp(x, [0, alpha, alpha + beta, 1], [0, 1, 1, 0]), abs=1e-9)


def test_levels():
    assert (Sigma(0.2, 5, 0.01).saturation, Sigma(0.2, 5, 0.01).maximum) == (0.2, pytest.approx(0.21))
    assert (Trapezoid().saturation, Trapezoid().maximum) == (1, 1)
    assert (Identity().saturation, Identity().maximum) == (1, 1)
    x = torch.rand(5)
    assert Identity()(x) is x


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Sigma(alpha=0), "head.alpha"),
        (lambda: Sigma(beta=-1), "head.beta"),
        (lambda: Sigma(gamma=-0.1), "head.gamma"),
        (lambda: Trapezoid(alpha=0), "head.alpha"),
        (lambda: Trapezoid(alpha=0.5, beta=0.5), "head.beta"),
    ],
)
def test_values_out_of_range_are_refused(make, key):
    with pytest.raises(CompsegError, match=f"^{key}: expected .* got"):
        make()
