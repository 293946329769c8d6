"""The kernel that reads the logits once equals the plain reduction.

Without a GPU: pip install triton, and TRITON_INTERPRET=1 in the environment.
"""

import math
import os

import pytest
import torch

from memtax.lm import fused
from memtax.lm.decoding import Decoding
from memtax.lm.reduction import Wanted, reduce

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)


def logits_of(kind, vocabulary=5003, rows=8):
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(rows, vocabulary, generator=generator) * 4
    if kind == "tied":
        found = found.round()
    if kind == "-inf":
        found[torch.rand(rows, vocabulary, generator=generator) < 0.4] = -math.inf
        found[0, : vocabulary - 1] = -math.inf  # whole blocks
        found[:, -1] = 0
    if kind == "huge":
        found[:4] *= 1e4
        found[4:] *= 1e30
    if kind == "ascending":
        found = found.sort(-1).values * 20
    if kind == "constant":
        found = torch.full_like(found, -7.5)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["random", "tied", "-inf", "huge", "ascending", "constant"])
@pytest.mark.parametrize("suppressed", [None, 17])
def test_the_kernel_equals_the_plain_reduction(kind, dtype, suppressed):
    logits = logits_of(kind).to(DEVICE, dtype)
    best = logits.argmax(-1)
    targets = torch.tensor([0, 5002, 4095, 4096, 17, 2500, 1, 3], device=DEVICE)
    targets = torch.where(torch.arange(8, device=DEVICE) % 2 == 0, best, targets)
    wanted = Wanted(moments=True, ranks=True, near=True, suppressed=suppressed)
    found, expected = fused.reduce_rows(logits, targets, wanted), reduce(logits, targets, wanted, plain=True)
    assert found.keys() == expected.keys()
    # In float32 the plain reduction rounds the bound for near-ties, which are of use in 16 bits.
    for name in ("match", "bad", "ranks", *(("near",) if dtype == torch.bfloat16 else ())):
        assert found[name].dtype == expected[name].dtype
        assert found[name].tolist() == expected[name].tolist(), name
    if suppressed is None:
        assert found["match"][::2].all()
    for name in ("logprobs", "means", "variances"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_the_kernel_sees_nan_infinity_and_rows_without_any_token():
    logits = torch.zeros(4, 5003, device=DEVICE)
    logits[0, 4999], logits[1, 2], logits[2] = math.nan, math.inf, -math.inf
    for wanted in (Wanted(), Wanted(logprobs=False)):
        found = fused.reduce_rows(logits, torch.zeros(4, dtype=torch.int64, device=DEVICE), wanted)
        assert found["bad"].tolist() == [True, True, True, False]


def test_only_what_is_wanted_is_returned_and_written():
    logits = logits_of("random")[:, :101].to(DEVICE)
    targets = torch.arange(8, device=DEVICE)
    found = fused.reduce_rows(logits.T.contiguous().T, targets, Wanted(logprobs=False))
    assert found.keys() == {"match", "bad"}
    assert found["match"].tolist() == (logits.argmax(-1) == targets).tolist()
    assert targets.tolist() == list(range(8))
    assert fused.reduce_rows(logits[:0], targets[:0], Wanted())["logprobs"].shape == (0,)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_on_a_gpu_the_kernel_is_used():
    assert fused.usable(torch.device("cuda")), fused.WHY
    logits, targets = logits_of("random").cuda(), torch.arange(8, device="cuda")
    wanted = Wanted(decoding=Decoding(0.7, 40))
    found, expected = (reduce(logits, targets, wanted, plain=plain) for plain in (False, True))
    for name in ("logprobs", "decoded"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
