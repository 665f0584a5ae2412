"""Tests of the paper's image encoder: published numbers at full size, properties at toy size."""

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled
from torch import Tensor, nn

from sdtalk.model import SDTalk
from sdtalk.published.keys import our_tensors
from sdtalk.reconstruction.dino_encoder import DinoEncoder, keep_names

TOY_PX, TOY_PYRAMID = 70, 8  # five patches to a side: odd, as the 37 of the real one


def toy(**arguments) -> DinoEncoder:
    torch.manual_seed(0)
    sizes = {"width": 32, "depth": 4, "heads": 2, "picture_px": TOY_PX, "pyramid_width": TOY_PYRAMID}
    return DinoEncoder(**{**sizes, **arguments}).eval()


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, TOY_PX, TOY_PX, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def fixture_e():
    return np.load(FIXTURES / "e_dinobase.npz")


@pytest.fixture(scope="module")
def stages(published_model: SDTalk) -> dict[str, Tensor]:
    """What the full-size encoder computes on the way, by the names of the fixture."""
    encoder = published_model.reconstructor.encoder
    seen: dict[str, Tensor] = {}

    def watch(name):
        return lambda module, inputs, output: seen.update({f"{name}_in": inputs[0], name: output})

    normalised: list[Tensor] = []
    watches = {encoder.backbone.layernorm: lambda module, inputs, output: normalised.append(output)}
    for i in range(4):
        watches[encoder.pyramid.mixers[i]] = watch(f"layer_rn{i}")
        watches[encoder.pyramid.fusions[i]] = watch(f"refinenet{i}")
    hooks = [module.register_forward_hook(report) for module, report in watches.items()]
    with torch.inference_mode():
        image = torch.from_numpy(parity_rule.image("in/e/image", 3, 518, 518))
        seen["local"], seen["global"] = encoder(image)
    for hook in hooks:
        hook.remove()
    for i, tokens in enumerate(normalised[-4:]):
        seen[f"layer{i}_patch"], seen[f"layer{i}_cls"] = tokens[:, 1:], tokens[:, 0]
        seen[f"layer_rn{i}_in_rgb"] = seen[f"layer_rn{i}_in"][:, :3]
    return seen


@pytest.mark.parametrize("level", range(4))
def test_every_level_is_the_published_one(stages, fixture_e, level):
    assert_sampled(stages[f"layer{level}_patch"], fixture_e, f"layer{level}_patch", atol=3e-5)
    cls = torch.from_numpy(fixture_e[f"layer{level}_cls"])
    torch.testing.assert_close(stages[f"layer{level}_cls"], cls, atol=3e-5, rtol=0)
    assert_sampled(stages[f"layer_rn{level}_in_rgb"], fixture_e, f"layer_rn{level}_in_rgb", atol=1e-6)
    assert_sampled(stages[f"layer_rn{level}"], fixture_e, f"layer_rn{level}", atol=5e-5)
    assert_sampled(stages[f"refinenet{level}"], fixture_e, f"refinenet{level}", atol=1e-4)


def test_both_features_are_the_published_ones(stages, fixture_e):
    assert_sampled(stages["local"], fixture_e, "local", atol=4.4e-4)
    torch.testing.assert_close(stages["global"], torch.from_numpy(fixture_e["global"]), atol=2.5e-5, rtol=0)


def test_another_size_would_be_a_bilinear_resize(stages, fixture_e):
    """The published module can resize its features; the published sizes never make it."""
    smaller = torch.nn.functional.interpolate(stages["local"], size=100, mode="bilinear", align_corners=True)
    assert_sampled(smaller, fixture_e, "local_size100", atol=4.4e-4)


def test_sizes_follow_from_the_arguments():
    local, code = toy()(pictures(2))
    assert local.shape == (2, TOY_PYRAMID, 40, 40) and code.shape == (2, 32)
    local, code = toy(picture_px=56, pyramid_width=4)(
        pictures(1)[..., :56, :56]
    )  # four patches to a side: even
    assert local.shape == (1, 4, 32, 32)


def test_a_picture_gets_the_same_features_in_any_company_and_mode():
    encoder, both = toy(), pictures(2)
    local, code = encoder(both)
    again, code_again = encoder.train()(both)
    assert torch.equal(local, again) and torch.equal(code, code_again)
    alone, code_alone = encoder(both[1:])
    torch.testing.assert_close(alone, local[1:])
    torch.testing.assert_close(code_alone, code[1:])
    assert not torch.allclose(local[0], local[1]) and not torch.allclose(code[0], code[1])


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_changes_little(autocast):
    encoder, image = toy(), pictures(1)
    local, code = encoder(image)
    if not autocast:
        encoder, image = encoder.bfloat16(), image.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough = encoder(image)
    assert rough[0].dtype == torch.bfloat16
    for ours, exact in zip(rough, (local, code), strict=True):
        assert (ours.float() - exact).abs().mean() < 0.02 * exact.std()


def test_gradients_reach_everything_the_local_features_pass():
    encoder = toy()
    encoder(pictures(1))[0].square().sum().backward()
    for name, parameter in encoder.pyramid.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert encoder.backbone.embeddings.patch_embeddings.projection.weight.grad.abs().max() > 0


def test_the_global_feature_is_the_class_token_or_the_first_patch():
    encoder, published = toy(), toy(first_patch_as_global=True)
    tokens = encoder.backbone((pictures(1) - encoder.rgb_mean) / encoder.rgb_std).last_hidden_state
    (local, code), (published_local, published_code) = encoder(pictures(1)), published(pictures(1))
    torch.testing.assert_close(code, tokens[:, 0])
    torch.testing.assert_close(published_code, tokens[:, 1])
    assert not torch.allclose(code, published_code)
    assert torch.equal(local, published_local)


@pytest.mark.parametrize("height, width", [(84, 70), (70, 84), (42, 42)])
def test_another_picture_size_is_refused(height, width):
    with pytest.raises(ValueError, match=rf"of 70x70 px, not of {width}x{height} px"):
        toy()(torch.rand(1, 3, height, width))


@pytest.mark.parametrize("arguments", [{"picture_px": 72}, {"depth": 3}])
def test_sizes_that_make_no_encoder_are_refused(arguments):
    with pytest.raises(ValueError, match="multiple of 14 px.* at least 4 blocks"):
        toy(**arguments)


def test_weights_survive_saving(tmp_path):
    encoder = toy()
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    torch.manual_seed(2)
    other = DinoEncoder(32, 4, 2, TOY_PX, TOY_PYRAMID).eval()
    assert not torch.equal(other(pictures(1))[0], encoder(pictures(1))[0])
    other.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True), strict=True)
    assert torch.equal(other(pictures(1))[0], encoder(pictures(1))[0])


def test_a_tensor_of_the_authors_is_renamed_cut_or_dropped():
    qkv = torch.arange(12.0).reshape(6, 2)
    ours = our_tensors("base_model.dino_model.blocks.10.attn.qkv.weight", qkv)
    attention = "reconstructor.encoder.backbone.encoder.layer.10.attention"
    assert list(ours) == [f"{attention}.{part}_proj.weight" for part in "qkv"]
    assert torch.equal(ours[f"{attention}.k_proj.weight"], qkv[2:4])
    whole = our_tensors("base_model.output_conv.bias", qkv)
    assert list(whole) == ["reconstructor.encoder.pyramid.out.bias"]
    assert torch.equal(*whole.values(), qkv)
    assert our_tensors("base_model.dino_model.mask_token", qkv) == {}
    with pytest.raises(KeyError, match="base_model.unheard_of"):
        our_tensors("base_model.unheard_of", qkv)


class OldLayer(nn.Module):
    """Names of a block before transformers 5.20."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(2)
        inner = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict(
            {"attention": inner, "output": nn.ModuleDict({"dense": nn.Linear(2, 2)})}
        )


class NewLayer(nn.Module):
    """And after."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(2)
        self.attention = nn.ModuleDict({f"{name}_proj": nn.Linear(2, 2) for name in "qkvo"})


@pytest.mark.parametrize("written_by", [OldLayer, NewLayer])
@pytest.mark.parametrize("read_by", [OldLayer, NewLayer])
def test_checkpoints_do_not_depend_on_the_version_of_transformers(written_by, read_by) -> None:
    """The names that the installed one gives are among those, which the second test looks at."""
    raw, kept, read = written_by(), written_by(), read_by()
    keep_names(kept)
    keep_names(read)
    raw.load_state_dict(kept.state_dict() if written_by is NewLayer else dict(kept.named_parameters()))
    whole = nn.ModuleDict({"backbone": kept})
    assert set(whole.state_dict()) == {f"backbone.{name}" for name in NewLayer().state_dict()}
    for state in (kept.state_dict(), raw.state_dict()):
        read.load_state_dict(state)
        assert all(
            torch.equal(a, b)
            for a, b in zip(read.state_dict().values(), kept.state_dict().values(), strict=True)
        )
        nn.ModuleDict({"backbone": read}).load_state_dict({f"backbone.{k}": v for k, v in state.items()})


def test_the_installed_transformers_gives_the_names_of_checkpoints() -> None:
    names = {name.partition("layer.0.")[2] for name in toy().backbone.state_dict()}
    attention = {f"attention.{name}_proj.{kind}" for name in "qkvo" for kind in ("weight", "bias")}
    assert attention <= names and not [name for name in names - attention if "attention" in name]
