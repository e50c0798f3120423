"""Every interaction layer against a literal transcription with loops over pairs, in value and gradient."""

import itertools
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tandemrec.conventional.rating.afm import AFMConfig, AFMInteractions
from tandemrec.conventional.rating.autoint import AutoIntConfig, AutoIntInteractions, FieldAttention
from tandemrec.conventional.rating.dcn import DCNConfig, DCNInteractions, VectorCrosses
from tandemrec.conventional.rating.deep import Deep, dropped_layer
from tandemrec.conventional.rating.deepfm import DeepFMConfig, DeepFMInteractions
from tandemrec.conventional.rating.embedding import Members, field_rows, field_vectors
from tandemrec.conventional.rating.fm import PairSum, pair_products
from tandemrec.conventional.rating.nfm import NFMConfig, NFMInteractions
from tandemrec.conventional.rating.predictor import InteractionConfig
from tandemrec.conventional.rating.xdeepfm import CompressedInteraction, XDeepFMConfig, XDeepFMInteractions
from tandemrec.training.dropout import drop

B, F, D = 3, 4, 6
LAYERS = (5, 3)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Double precision, every parameter drawn anew, so that no zero or even start hides a mistake."""
    module = module.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters(), 1):
            parameter.copy_(numbers(*parameter.shape, seed=seed))
    return module


def assert_equal_with_gradients(module: nn.Module, slow: Callable[[Tensor], Tensor]) -> None:
    """Both ways on the same vectors: outputs, and gradients of a weighted sum by vectors and all parameters."""
    vectors = numbers(B, F, D, seed=99).requires_grad_()
    leaves = [vectors, *module.parameters()]
    found, expected = module(vectors), torch.stack([slow(example) for example in vectors])
    torch.testing.assert_close(found, expected)
    weight = numbers(*found.shape, seed=98)
    gradients = [torch.autograd.grad((out * weight).sum(), leaves) for out in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum((a[d] * b[d] for d in range(len(a))), torch.tensor(0.0, dtype=torch.float64))


def slow_pairs(fields: Tensor) -> Tensor:
    """Σ_{i<j} e_i ⊙ e_j."""
    total = torch.zeros(D, dtype=torch.float64)
    for i, j in itertools.combinations(range(F), 2):
        total = total + fields[i] * fields[j]
    return total


def slow_deep(deep: Deep, inputs: Tensor) -> Tensor:
    for step in deep.maps:
        rows = [dot(step.weight[row], inputs) + step.bias[row] for row in range(step.out_features)]
        inputs = torch.stack([row if row > 0 else row * 0 for row in rows])
    return inputs


def flat(fields: Tensor) -> Tensor:
    return torch.cat([fields[f] for f in range(F)])


def test_fm() -> None:
    assert_equal_with_gradients(PairSum(), lambda fields: slow_pairs(fields).sum())
    vectors = numbers(B, F, D)
    torch.testing.assert_close(pair_products(vectors), torch.stack([slow_pairs(example) for example in vectors]))


def test_deepfm() -> None:
    module = randomised(DeepFMInteractions(F, DeepFMConfig(dim=D, layers=LAYERS)))
    assert isinstance(module, DeepFMInteractions)

    def slow(fields: Tensor) -> Tensor:
        return slow_pairs(fields).sum() + dot(module.out.weight[0], slow_deep(module.deep, flat(fields)))

    assert_equal_with_gradients(module, slow)


@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_nfm(layers: tuple[int, ...]) -> None:
    module = randomised(NFMInteractions(NFMConfig(dim=D, layers=layers)))
    assert isinstance(module, NFMInteractions)
    assert_equal_with_gradients(
        module, lambda fields: dot(module.out.weight[0], slow_deep(module.deep, slow_pairs(fields)))
    )


@pytest.mark.parametrize("cross", ["vector", "matrix"])
@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_dcn(cross: str, layers: tuple[int, ...]) -> None:
    config = DCNConfig(dim=D, cross=cross, cross_layers=3, layers=layers)  # type: ignore[arg-type]
    module = randomised(DCNInteractions(F, config))
    assert isinstance(module, DCNInteractions)

    def slow(fields: Tensor) -> Tensor:
        first = flat(fields)
        x = first
        for layer in range(3):
            if isinstance(module.crosses, VectorCrosses):
                outer = first[:, None] * x[None, :]  # x_0 x_lᵀ, as the paper writes it
                x = (
                    torch.stack([dot(row, module.crosses.weight[layer]) for row in outer])
                    + module.crosses.bias[layer]
                    + x
                )
            else:
                linear = module.crosses.maps[layer]
                mapped = torch.stack([dot(row, x) for row in linear.weight]) + linear.bias
                x = first * mapped + x
        deep = slow_deep(module.deep, first) if module.deep else torch.zeros(0)
        return dot(module.out.weight[0], torch.cat([x, deep]))

    assert_equal_with_gradients(module, slow)


def test_afm() -> None:
    module = randomised(AFMInteractions(F, AFMConfig(dim=D, attention_dim=3)))
    assert isinstance(module, AFMInteractions)

    def slow(fields: Tensor) -> Tensor:
        scores, products = [], []
        for i, j in itertools.combinations(range(F), 2):
            product = fields[i] * fields[j]
            hidden = [
                dot(row, product) + bias
                for row, bias in zip(module.attention.weight, module.attention.bias, strict=True)
            ]
            scores.append(dot(module.score.weight[0], torch.stack([h.clamp(min=0) for h in hidden])))
            products.append(product)
        total = sum(score.exp() for score in scores)
        pooled = sum(score.exp() / total * product for score, product in zip(scores, products, strict=True))
        return dot(module.out, pooled)  # type: ignore[arg-type]

    assert_equal_with_gradients(module, slow)


def slow_cin(cin: CompressedInteraction, fields: Tensor, config: XDeepFMConfig) -> Tensor:
    hidden = [fields[f] for f in range(F)]
    pooled = []
    for place, linear in enumerate(cin.maps):
        out = []
        for h in range(linear.out_features):
            total = linear.bias[h].expand(D)
            for i, j in itertools.product(range(len(hidden)), range(F)):
                total = total + linear.weight[h, i * F + j] * hidden[i] * fields[j]
            out.append(total.clamp(min=0) if config.cin_activation == "relu" else total)
        if config.split_half and place < len(cin.maps) - 1:
            hidden, out = out[: len(out) // 2], out[len(out) // 2 :]
        else:
            hidden = out
        pooled += [feature_map.sum() for feature_map in out]
    return torch.stack(pooled)


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("split_half", [True, False])
def test_xdeepfm(split_half: bool, activation: Literal["relu", "identity"]) -> None:
    config = XDeepFMConfig(dim=D, cin_layers=(4, 6, 2), cin_activation=activation, split_half=split_half, layers=LAYERS)
    cin = randomised(CompressedInteraction(F, config))
    assert isinstance(cin, CompressedInteraction)
    assert_equal_with_gradients(cin, lambda fields: slow_cin(cin, fields, config))
    whole = randomised(XDeepFMInteractions(F, config))
    assert isinstance(whole, XDeepFMInteractions)

    def slow(fields: Tensor) -> Tensor:
        assert whole.deep is not None
        parts = [slow_cin(whole.cin, fields, config), slow_deep(whole.deep, flat(fields))]
        return dot(whole.out.weight[0], torch.cat(parts))

    assert_equal_with_gradients(whole, slow)


def slow_attention(layer: FieldAttention, fields: Tensor) -> Tensor:
    size = D // layer.heads
    query, key, value, residual = layer.maps  # (D, D) each: row vector times matrix
    out = []
    for m in range(F):
        heads = []
        for h in range(layer.heads):
            columns = slice(h * size, (h + 1) * size)
            own = fields[m] @ query[:, columns]
            scores = [dot(own, fields[k] @ key[:, columns]).exp() for k in range(F)]
            total = sum(scores)
            heads.append(sum(scores[k] / total * (fields[k] @ value[:, columns]) for k in range(F)))
        out.append((torch.cat(heads) + fields[m] @ residual).clamp(min=0))  # type: ignore[arg-type]
    return torch.stack(out)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_autoint(heads: int) -> None:
    layer = randomised(FieldAttention(D, heads))
    assert isinstance(layer, FieldAttention)
    with torch.no_grad():
        layer.maps *= 0.3  # softmax over raw scores of random maps would be one-hot

    # The layer itself has the batch behind; as one of a whole model it is called so.
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, vectors: Tensor) -> Tensor:
            turned: Tensor = layer(vectors.permute(2, 1, 0)).permute(2, 1, 0)
            return turned

    assert_equal_with_gradients(Turned(), lambda fields: slow_attention(layer, fields))
    config = AutoIntConfig(dim=D, heads=heads, attention_layers=1, layers=LAYERS)
    whole = randomised(AutoIntInteractions(F, config))
    assert isinstance(whole, AutoIntInteractions)
    with torch.no_grad():
        whole.attention[0].maps *= 0.3

    def slow(fields: Tensor) -> Tensor:
        assert whole.deep is not None
        parts = [flat(slow_attention(whole.attention[0], fields)), slow_deep(whole.deep, flat(fields))]  # type: ignore[arg-type]
        return dot(whole.out.weight[0], torch.cat(parts))

    assert_equal_with_gradients(whole, slow)


def test_afm_with_even_attention_is_fm() -> None:
    module = AFMInteractions(F, AFMConfig(dim=D)).double().eval()
    nn.init.zeros_(module.score.weight)
    vectors = numbers(B, F, D)
    torch.testing.assert_close(module(vectors), PairSum()(vectors))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoIntConfig(dim=6, heads=4), "heads must divide dim, found 4 heads and dim 6"),
        (lambda: XDeepFMConfig(cin_layers=(5, 4)), "split_half needs even cin_layers, found 5"),
        (lambda: XDeepFMConfig(cin_layers=(4, 0)), r"cin_layers\.1\s+Input should be greater than or equal to 1"),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("width", [0, -3])
@pytest.mark.parametrize("config", [DeepFMConfig, NFMConfig, DCNConfig, XDeepFMConfig, AutoIntConfig])
def test_layers_without_outputs_are_refused(config: type[InteractionConfig], width: int) -> None:
    with pytest.raises(ValueError, match=r"layers\.1\s+Input should be greater than or equal to 1"):
        config.model_validate({"layers": (8, width)})


def test_a_layer_with_dropout_in_one_step_is_that_in_three() -> None:
    layer = nn.Linear(40, 30).double()
    inputs = numbers(50, 40).requires_grad_()
    leaves = [inputs, *layer.parameters()]
    torch.manual_seed(3)
    one = dropped_layer(layer, inputs, 0.3, training=True)
    torch.manual_seed(3)
    three = drop(layer(inputs).relu(), 0.3, training=True)
    assert one.equal(three) and 0 < (one == 0).double().mean() < 1
    weight = numbers(50, 30, seed=1)
    gradients = [torch.autograd.grad((out * weight).sum(), leaves) for out in (one, three)]
    torch.testing.assert_close(*gradients)
    assert dropped_layer(layer, inputs, 0.3, training=False).equal(layer(inputs).relu())


def test_a_layer_with_dropout_in_half_precision() -> None:
    layer, inputs = nn.Linear(40, 30), numbers(50, 40).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = dropped_layer(layer, inputs, 0.3, training=True)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and inputs.grad is not None and inputs.grad.dtype == torch.float32


@pytest.mark.parametrize("widths", [(), (2,), (3, 1)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rates", [(0.7, 0.2), (0.7, 0.0)])
def test_vectors_weights_and_penalty_of_a_batch(
    widths: tuple[int, ...], weighted: bool, rates: tuple[float, float]
) -> None:
    """Against one row after the other: a set's vector is the mean of its members, the penalty is paid by fields."""
    single, rows = 2, 9
    ids = torch.randint(1, rows, (B, single + sum(widths)), generator=torch.Generator().manual_seed(5))
    if widths:
        ids[0, single + 1 : single + widths[0]] = 0  # a set with places left over
    sets = ids[:, single:].split(list(widths), 1) if widths else []
    inverse = torch.stack([1 / (part > 0).sum(1) for part in sets], 1).double() if widths else torch.empty(B, 0)
    rate = torch.tensor([rates[0]] * D + [rates[1]], dtype=torch.float64)
    share = numbers(B, single + len(widths), seed=3).abs() if weighted else None
    table = numbers(rows, D + 1)
    table[0] = 0
    table.requires_grad_()
    members = Members(ids, inverse)
    found = field_vectors(table, members, widths, rates, share)

    vectors, linear, penalty = [], [], table.new_zeros(())
    for b in range(B):
        fields = [[row] for row in ids[b, :single].tolist()] + [[r for r in part[b].tolist() if r] for part in sets]
        means = [torch.stack([table[row] for row in row_ids]).sum(0) / len(row_ids) for row_ids in fields]
        vectors.append(torch.stack([mean[:-1] for mean in means]))
        linear.append(sum(mean[-1] for mean in means))
        for f, mean in enumerate(means):
            penalty = penalty + (1.0 if share is None else share[b, f]) * (rate * mean**2).sum()
        torch.testing.assert_close(field_rows(table, members, widths)[b], torch.stack(means))
    expected = torch.stack(vectors), torch.stack(linear), penalty  # type: ignore[arg-type]
    weights = [numbers(*out.shape, seed=seed) for seed, out in enumerate(expected, 7)]
    gradients = []
    for out in (found, expected):
        torch.testing.assert_close(out[0], expected[0])
        total = sum((part * weight).sum() for part, weight in zip(out, weights, strict=True))
        gradients.append(torch.autograd.grad(total, table)[0])  # type: ignore[arg-type]
    torch.testing.assert_close(found[1:], expected[1:])
    torch.testing.assert_close(*gradients)
    assert not gradients[0][0].any()
