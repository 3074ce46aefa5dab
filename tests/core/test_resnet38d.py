"""ResNet-38d: its form, and the names of its published weights."""

import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss_core.networks.backbones import load_weights
from wsss_core.networks.resnet38d import Block, Bottleneck, ResNet38d

WIDTH = 2  # in place of 64; everything else is as published


@pytest.fixture
def network() -> ResNet38d:
    torch.manual_seed(0)
    return ResNet38d(width=WIDTH).eval()


def test_the_five_maps_end_the_groups_and_the_last_is_positive(network):
    last, maps = network.forward_intermediates(torch.randn(1, 3, 33, 40))
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 17, 20), (8, 9, 10), (16, 5, 5), (32, 5, 5), (128, 5, 5)]
    assert last is maps[-1]
    assert last.min() == 0
    assert last.max() > 0
    assert all(m.min() < 0 for m in maps[:-1])


def test_strides_and_dilations_are_those_of_psa(network):
    def form(conv):
        assert conv.padding[0] == conv.dilation[0] * (conv.kernel_size[0] // 2)
        return conv.kernel_size[0], conv.stride[0], conv.dilation[0]

    assert [len(group) for group in (network.b2, network.b3, network.b4, network.b5)] == [3, 3, 6, 3]
    for group in (network.b2, network.b3, network.b4):
        assert [form(group[0].conv2a), form(group[0].conv2b1), form(group[0].conv1)] == [
            (3, 2, 1),
            (3, 1, 1),
            (1, 2, 1),
        ]
        assert {form(conv) for block in group[1:] for conv in (block.conv2a, block.conv2b1)} == {(3, 1, 1)}
    assert [form(b.conv2a) + form(b.conv2b1) for b in network.b5] == [(3, 1, 1, 3, 1, 2)] + [(3, 1, 2, 3, 1, 2)] * 2
    for block in (network.b6[0], network.b7[0]):
        assert [form(block.conv2a), form(block.conv2b1), form(block.conv2b2)] == [(1, 1, 1), (3, 1, 4), (1, 1, 1)]
    assert network.b6[0].conv2a.out_channels * 4 == network.b6[0].conv2b1.out_channels * 2 == 32 * WIDTH


def test_a_block_adds_its_input_or_a_projection_of_its_activation():
    x = torch.randn(1, 4, 5, 5)
    same, wider, bottleneck = Block(4, 4, 4), Block(4, 4, 8, stride=2), Bottleneck(4, 8, dilation=4, dropout=0.3)
    for block in (same, wider):
        torch.nn.init.zeros_(block.eval().conv2b1.weight)
    torch.nn.init.zeros_(bottleneck.eval().conv2b2.weight)
    assert torch.equal(same(x), x)
    active = F.relu(x / (1 + 1e-5) ** 0.5)  # BatchNorm as it starts
    torch.testing.assert_close(wider(x), F.conv2d(active, wider.conv1.weight, stride=2))
    torch.testing.assert_close(bottleneck(x), F.conv2d(active, bottleneck.conv1.weight))


def test_a_block_s_branch_activates_before_each_convolution():
    torch.manual_seed(0)
    x, block = torch.randn(2, 4, 6, 6), Block(4, 3, 4, first=2, dilation=2).eval()
    scale = (1 + 1e-5) ** -0.5
    middle = F.conv2d(F.relu(x * scale), block.conv2a.weight, padding=2, dilation=2)
    branch = F.conv2d(F.relu(middle * scale), block.conv2b1.weight, padding=2, dilation=2)
    torch.testing.assert_close(block(x), x + branch)


def test_dropout_takes_whole_channels_in_training_alone():
    torch.manual_seed(0)
    block = Bottleneck(4, 400, dilation=4, dropout=0.5)
    seen = []
    block.conv2b2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block.train()(torch.randn(1, 4, 6, 6))
    block.eval()(torch.randn(1, 4, 6, 6))
    lost = [(maps.amax((0, 2, 3)) == 0).float().mean().item() for maps in seen]
    assert lost[0] == pytest.approx(0.5, abs=0.12)
    assert lost[1] < 0.05


# --- published weights -----------------------------------------------------------------------------------------------

BLOCKS = {2: 3, 3: 3, 4: 6, 5: 3, 6: 1, 7: 1}


def parts() -> list[tuple[int, int, str, bool]]:
    """(group, block, branch, whether the branch has a BatchNorm) of every convolution behind the first."""
    found = []
    for group, count in BLOCKS.items():
        for block in range(count):
            found += [(group, block, branch, True) for branch in ("2a", "2b1", *(["2b2"] if group > 5 else []))]
            if block == 0:
                found.append((group, block, "1", False))
    return found


def mxnet_names() -> list[tuple[str, str]]:
    """The names of the file beside those of the module."""
    names = [("arg:conv1a_weight", "conv1a.weight")]
    norms = [("bn7", "b7.1")]
    for group, block, branch, normed in parts():
        place = f"{group}b{block}" if block else f"{group}a"
        names.append((f"arg:res{place}_branch{branch}_weight", f"b{group}.{block}.conv{branch}.weight"))
        if normed:
            norms.append((f"bn{place}_branch{branch}", f"b{group}.{block}.bn{branch}"))
    for theirs, ours in norms:
        names += [(f"arg:{theirs}_gamma", f"{ours}.weight"), (f"arg:{theirs}_beta", f"{ours}.bias")]
        names += [(f"aux:{theirs}_moving_mean", f"{ours}.running_mean")]
        names += [(f"aux:{theirs}_moving_var", f"{ours}.running_var")]
    return names


def write_params(path, arrays: dict[str, np.ndarray]):
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        content += struct.pack(f"<I{array.ndim}Iiii", array.ndim, *array.shape, 1, 0, 0) + array.tobytes()
    content += struct.pack("<Q", len(arrays))
    content += b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)
    path.write_bytes(content)
    return path


@pytest.fixture
def arrays(network) -> dict[str, np.ndarray]:
    """As in the authors' file, each array filled with a number of its own."""
    own = network.state_dict()
    arrays = {
        theirs: np.full(tuple(own[ours].shape), number, np.float32)
        for number, (theirs, ours) in enumerate(mxnet_names(), start=1)
    }
    return {
        **arrays,
        "arg:linear1000_weight": np.ones((1000, 8), np.float32),
        "arg:linear1000_bias": np.ones(1000, "f4"),
    }


def test_every_tensor_of_the_trunk_gets_the_value_of_its_name(network, arrays, tmp_path):
    load_weights(network, write_params(tmp_path / "rna.params", arrays))
    own = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    expected = dict(zip((ours for _, ours in mxnet_names()), range(1, 1000), strict=False))
    assert own.keys() == expected.keys()
    assert len(own) == 43 + 4 * 37
    assert all((value == expected[name]).all() for name, value in own.items())


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("arg:bn2a_branch2a_gamma", r"b2\.0\.bn2a\.weight"),
        ("aux:bn4b5_branch2b1_moving_var", r"b4\.5\.bn2b1\.running_var"),
        ("arg:res7a_branch2b2_weight", r"b7\.0\.conv2b2\.weight"),
        ("aux:bn7_moving_mean", r"b7\.1\.running_mean"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(network, arrays, tmp_path, gone, missing):
    del arrays[gone]
    with pytest.raises(
        ValueError, match=rf"rna\.params does not hold weights of resnet38d: 1 .* missing \['{missing}'\]"
    ):
        load_weights(network, write_params(tmp_path / "rna.params", arrays))


def test_a_file_of_another_network_is_refused(network, tmp_path):
    path = write_params(tmp_path / "other.params", {"arg:conv0_weight": np.ones((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"other\.params does not hold .*1 are unknown \['arg:conv0_weight'\]"):
        load_weights(network, path)


def test_psa_s_checkpoints_load_without_their_head(network, tmp_path):
    def psa(ours: str) -> str:
        group, block, layer, value = ours.split(".")
        kind = "conv" if layer.startswith("conv") else "bn"
        return f"{group}{f'_{block}' if block != '0' else ''}.{kind}_branch{layer.removeprefix(kind)}.{value}"

    own = {name: torch.rand_like(value) for name, value in network.state_dict().items() if "num_batches" not in name}
    theirs = {}
    for name, value in own.items():
        plain = name == "conv1a.weight"
        theirs[name if plain else name.replace("b7.1", "bn7") if name.startswith("b7.1.") else psa(name)] = value
    assert {"b4_5.bn_branch2b1.running_var", "b7.conv_branch1.weight", "b2.conv_branch2a.weight"} <= theirs.keys()
    torch.save({**theirs, "fc8.weight": torch.ones(20, 128, 1, 1)}, tmp_path / "res38_cls.pth")
    load_weights(network, tmp_path / "res38_cls.pth")
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items() if name in own)
