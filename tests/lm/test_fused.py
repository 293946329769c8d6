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


KINDS = ["random", "tied", "-inf", "huge", "largest", "one token", "tied across blocks", "ascending", "constant"]


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
    if kind == "largest":
        found[:] = found.sign() * 3e38  # differences overflow
        found[0, 0], found[1, vocabulary - 1] = 3.3e38, 3.3e38
    if kind == "one token":
        token = torch.arange(rows) * (vocabulary // rows)
        found = torch.full_like(found, -math.inf).scatter_(1, token[:, None], 0.25)
    if kind == "tied across blocks":
        found[:, [4095, 4096, vocabulary - 1]] = 30.0
    if kind == "ascending":
        found = found.sort(-1).values * 20
    if kind == "constant":
        found = torch.full_like(found, -7.5)
    return found


@pytest.mark.parametrize(("dtype", "vocabulary"), [(torch.float32, 5003), (torch.bfloat16, 5003), (torch.float16, 5008)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suppressed", [None, 17])
def test_the_kernel_equals_the_plain_reduction(kind, dtype, vocabulary, suppressed):
    logits = logits_of(kind, vocabulary)
    if dtype == torch.float16:
        logits = logits.clamp(-6e4, 6e4).where(logits.isfinite(), logits)
    logits = logits.to(DEVICE, dtype)
    best = logits.argmax(-1)
    targets = torch.tensor([0, 5002, 4095, 4096, 17, 2500, 1, 3], device=DEVICE)
    targets = torch.where(torch.arange(8, device=DEVICE) % 2 == 0, best, targets)
    wanted = Wanted(moments=True, ranks=True, near=True, suppressed=suppressed)
    found, expected = fused.reduce_rows(logits, targets, wanted), reduce(logits, targets, wanted, plain=True)
    assert found.keys() == expected.keys()
    # In float32 the plain reduction rounds the bound for near-ties, which are of use in 16 bits.
    for name in ("match", "bad", "ranks", *(("near",) if dtype != torch.float32 else ())):
        assert found[name].dtype == expected[name].dtype
        assert found[name].tolist() == expected[name].tolist(), name
    if suppressed is None:
        assert found["match"][::2].all()
    for name in ("logprobs", "means", "variances"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def equal(logits, targets, wanted):
    """Whether decisions, flags and ranks are those of the plain reduction, and values nearly."""
    logits, targets = logits.to(DEVICE), targets.to(DEVICE)
    found, expected = fused.reduce_rows(logits, targets, wanted), reduce(logits, targets, wanted, plain=True)
    for name, values in found.items():
        if values.dtype == torch.float32:
            torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5, msg=name)
        else:
            assert values.tolist() == expected[name].tolist(), name


LANES = 4
"""Few, so that short rows have many blocks: of 32 logits in 16 bits, in groups of 8."""
PLACES = [0, 1, 7, 8, 31, 32, 33, 72, 95, 96, 98]
"""In one group, in one lane of several blocks, in several lanes, and the last of a block that is not full."""


@pytest.mark.parametrize("second", [2.0, 1.9921875, 1.0])
@pytest.mark.parametrize(("vocabulary", "suppressed"), [(99, None), (112, None), (99, 0), (112, 33)])
def test_the_two_largest_logits_may_be_at_any_two_places(monkeypatch, vocabulary, second, suppressed):
    monkeypatch.setattr(fused, "_LANES", LANES)
    pairs = [(first, other) for first in PLACES for other in PLACES if first != other]
    logits = torch.linspace(-3, 0.5, vocabulary).repeat(len(pairs), 1)
    for row, (first, other) in enumerate(pairs):
        logits[row, first], logits[row, other] = 2.0, second
    wanted = Wanted(logprobs=False, ranks=True, near=True, suppressed=suppressed)
    logits = logits.bfloat16()
    assert reduce(logits, torch.tensor([pair[0] for pair in pairs]), wanted, plain=True)["near"].any() == (second > 1)
    equal(logits, torch.tensor([pair[number % 2] for number, pair in enumerate(pairs)]), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_is_not_counted(monkeypatch, dtype):
    monkeypatch.setattr(fused, "_LANES", LANES)
    for vocabulary in (1, 5, 33, 48):
        for value in (-1e4, -3.38e38, torch.finfo(dtype).min):
            logits = torch.full((3, vocabulary), value, dtype=dtype)
            logits[2, : vocabulary - 1] = -math.inf
            targets = torch.tensor([0, vocabulary - 1, vocabulary - 1])
            # The plain reduction's bound for near-ties overflows at the lowest numbers.
            equal(logits, targets, Wanted(moments=True, ranks=True, near=value > -1e5 and dtype != torch.float32))


@pytest.mark.parametrize("target_first", [True, False])
def test_ranks_of_equal_logits_zeros_and_the_smallest_numbers(monkeypatch, target_first):
    monkeypatch.setattr(fused, "_LANES", 2)  # blocks of 8 logits in float32
    values = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3.4e38, -3.4028234663852886e38, -math.inf, 1.0, -1.0]
    row = torch.tensor([value for value in values for _ in range(3)] + values)
    row = row if target_first else row.flip(0)
    equal(row.repeat(len(row), 1), torch.arange(len(row)), Wanted(logprobs=False, ranks=True))


def test_a_suppressed_token_keeps_its_probability_wherever_it_is(monkeypatch):
    monkeypatch.setattr(fused, "_LANES", LANES)
    logits = logits_of("random", 99, 6)
    for suppressed in (0, 5, 63, 98, 99, 100):
        if suppressed < 99:
            logits[0, suppressed], logits[1, suppressed], logits[2, suppressed] = 40.0, -math.inf, logits[2].max()
            logits[3] = -math.inf
            logits[3, suppressed], logits[3, 50] = 1.0, 0.5
        for targets in (torch.arange(6), torch.full((6,), min(suppressed, 98))):
            finite = logits[torch.arange(6), targets].isfinite()  # -inf minus a mean is compared elsewhere
            wanted = Wanted(moments=True, ranks=True, suppressed=suppressed if suppressed < 99 else None)
            equal(logits[finite], targets[finite], wanted)
    alone = torch.full((2, 99), -math.inf)
    alone[:, 40] = 1.0
    equal(alone, torch.tensor([0, 1]), Wanted(suppressed=40))
    unknown = fused.reduce_rows(logits.to(DEVICE), torch.arange(6, device=DEVICE), Wanted(suppressed=99))
    assert unknown["match"].tolist() == (logits.argmax(-1) == torch.arange(6)).tolist()


@pytest.mark.parametrize("wanted", [{}, {"logprobs": False}, {"moments": True}, {"logprobs": False, "moments": True}])
@pytest.mark.parametrize("suppressed", [None, 2, 4999])
def test_the_kernel_sees_nan_infinity_and_rows_without_any_token(wanted, suppressed):
    logits = torch.zeros(8, 5003)
    for row, place in enumerate((4999, 2, 0, 5002)):
        logits[row, place] = math.nan
    logits[4, 2], logits[5, 4999], logits[6] = math.inf, math.inf, -math.inf
    targets = torch.zeros(8, dtype=torch.int64, device=DEVICE)
    found = fused.reduce_rows(logits.to(DEVICE), targets, Wanted(**wanted, suppressed=suppressed))
    assert found["bad"].tolist() == [True] * 7 + [False]


def test_only_what_is_wanted_is_returned_and_written():
    logits = logits_of("random")[:, :101].to(DEVICE)
    targets = torch.arange(8, device=DEVICE)
    found = fused.reduce_rows(logits.T.contiguous().T, targets, Wanted(logprobs=False))
    assert found.keys() == {"match", "bad"}
    assert found["match"].tolist() == (logits.argmax(-1) == targets).tolist()
    assert targets.tolist() == list(range(8))
    assert fused.reduce_rows(logits[:0], targets[:0], Wanted())["logprobs"].shape == (0,)


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 4095, 4096, 4097, 8192, 12_289])
def test_any_size_of_vocabulary_and_a_single_row(vocabulary):
    for rows in (1, 3):
        logits = logits_of("random", vocabulary, rows).to(DEVICE)
        wanted = Wanted(moments=True, ranks=True, near=True)
        for targets in (logits.argmax(-1), torch.full((rows,), vocabulary - 1, device=DEVICE)):
            found, expected = fused.reduce_rows(logits, targets, wanted), reduce(logits, targets, wanted, plain=True)
            for name, values in found.items():
                torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_rows_and_targets_may_be_parts_of_larger_tensors():
    logits, targets = logits_of("tied").to(DEVICE), torch.arange(16, device=DEVICE)[::2]
    found = fused.reduce_rows(logits[:, :101], targets, Wanted(ranks=True))
    expected = reduce(logits[:, :101].contiguous(), targets, Wanted(ranks=True), plain=True)
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_offsets_beyond_32_bits():
    rows, vocabulary = 2**31 // 50_304 + 9, 50_304
    logits = torch.empty(rows, vocabulary, dtype=torch.bfloat16, device="cuda")
    logits[:8] = logits[-8:] = logits_of("random", vocabulary).cuda().bfloat16()
    logits[8:-8] = 0
    found = fused.reduce_rows(logits, torch.arange(rows, device="cuda") % 8, Wanted(ranks=True))
    targets = torch.arange(rows - 8, rows, device="cuda") % 8
    expected = reduce(logits[-8:], targets, Wanted(ranks=True), plain=True)
    for name in ("ranks", "match", "bad"):
        assert found[name][-8:].tolist() == expected[name].tolist(), name
    torch.testing.assert_close(found["logprobs"][-8:], expected["logprobs"], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_the_second_of_two_cards():
    logits, targets = logits_of("random").to("cuda:1"), torch.arange(8, device="cuda:1")
    assert fused.usable(logits.device), fused.WHY
    found, expected = fused.reduce_rows(logits, targets, Wanted()), reduce(logits, targets, Wanted(), plain=True)
    torch.testing.assert_close(found["logprobs"], expected["logprobs"], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_on_a_gpu_the_kernel_is_used():
    assert fused.usable(torch.device("cuda")), fused.WHY
    logits, targets = logits_of("random").cuda(), torch.arange(8, device="cuda")
    wanted = Wanted(decoding=Decoding(0.7, 40))
    found, expected = (reduce(logits, targets, wanted, plain=plain) for plain in (False, True))
    for name in ("logprobs", "decoded"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
