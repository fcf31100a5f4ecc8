"""Video models of transformers, as tiny networks that are saved and loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

transformers = pytest.importorskip("transformers")

from reelstack.errors import ConfigError, WeightsError  # noqa: E402
from reelstack.models.base import Extractor  # noqa: E402
from reelstack.models.registry import create_extractor, model_entry  # noqa: E402

SIZE = 32
CLASSES = 5
WIDTHS: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NAMES = {index: f"class {index}" for index in range(CLASSES)}


def videomae(**options: Any) -> Any:
    sizes = {"image_size": SIZE, "patch_size": 16, "num_frames": 4, "tubelet_size": 2}
    decoder = {"decoder_hidden_size": 12, "decoder_num_hidden_layers": 1}
    heads = {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    return transformers.VideoMAEConfig(
        **{**WIDTHS, **sizes, **decoder, **heads, "id2label": NAMES, **options}
    )


def vjepa2(**options: Any) -> Any:
    sizes = {"crop_size": SIZE, "patch_size": 16, "frames_per_clip": 4, "tubelet_size": 2}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    pooler = {"num_pooler_layers": 1, "mlp_ratio": 2.0, "id2label": NAMES}
    return transformers.VJEPA2Config(**{**WIDTHS, **sizes, **predictor, **pooler, **options})


def timesformer(**options: Any) -> Any:
    sizes = {"image_size": SIZE, "patch_size": 16, "num_frames": 4}
    return transformers.TimesformerConfig(**{**WIDTHS, **sizes, "id2label": NAMES, **options})


def vivit(**options: Any) -> Any:
    sizes = {"image_size": SIZE, "tubelet_size": [2, 16, 16], "num_frames": 4}
    return transformers.VivitConfig(**{**WIDTHS, **sizes, "id2label": NAMES, **options})


def xclip(**options: Any) -> Any:
    sizes = {"image_size": SIZE, "patch_size": 16, "num_frames": 4}
    integration = {
        "mit_hidden_size": 16,
        "mit_intermediate_size": 16,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }
    return transformers.XCLIPConfig(
        vision_config={**WIDTHS, **sizes, **integration},
        text_config={**WIDTHS, "vocab_size": 50, "max_position_embeddings": 8},
        projection_dim=16,
        prompt_layers=1,
        prompt_num_attention_heads=2,
        **options,
    )


CONFIGS: dict[str, Callable[..., Any]] = {
    "videomae": videomae,
    "vjepa2": vjepa2,
    "timesformer": timesformer,
    "vivit": vivit,
    "xclip": xclip,
}
CLASSIFIERS = {
    "videomae": "VideoMAEForVideoClassification",
    "vjepa2": "VJEPA2ForVideoClassification",
    "timesformer": "TimesformerForVideoClassification",
    "vivit": "VivitForVideoClassification",
}
BACKBONES = {
    "videomae": "VideoMAEModel",
    "vjepa2": "VJEPA2Model",
    "timesformer": "TimesformerModel",
    "vivit": "VivitModel",
    "xclip": "XCLIPModel",
}
PROCESSORS = {
    "videomae": {"image_processor_type": "VideoMAEImageProcessor"},
    "vjepa2": {"video_processor_type": "VJEPA2VideoProcessor"},
    "timesformer": {"feature_extractor_type": "VideoMAEFeatureExtractor"},
    "vivit": {"image_processor_type": "VivitImageProcessor", "rescale_factor": 1 / 127.5},
    "xclip": {"image_processor_type": "VideoMAEImageProcessor"},
}


def save(folder: Path, kind: str, network_class: str, **options: Any) -> Any:
    """A network with random weights, saved with the preprocessor's configuration."""
    torch.manual_seed(7)
    network = getattr(transformers, network_class)(CONFIGS[kind](**options)).eval()
    with torch.no_grad():  # what starts as zeros would hide mistakes
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    facts = {
        "size": {"shortest_edge": SIZE + 4},
        "crop_size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
        "resample": 2,
        **PROCESSORS[kind],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return network


def opened(folder: Path, *, stack_size: int | None = None, **settings: Any) -> Extractor:
    extractor = create_extractor(model_entry(f"hf/{folder}"), settings=settings)
    extractor.stack_size = stack_size
    extractor.load({"rgb": folder}, device="cpu", precision="fp32")
    return extractor


def frames(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)


def windows(extractor: Extractor, count: int = 2) -> torch.Tensor:
    """(count, T, 3, h, w): consecutive windows without overlap."""
    assert extractor.stack_size is not None
    pixels = extractor.preprocess(frames(count * extractor.stack_size))["rgb"]
    return pixels.unflatten(0, (count, extractor.stack_size))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_reads_the_pooled_feature(kind: str, tmp_path: Path) -> None:
    network = save(tmp_path, kind, CLASSIFIERS[kind])
    extractor = opened(tmp_path)
    assert extractor.stack_size == 4
    clips = windows(extractor)
    assert clips.shape == (2, 4, 3, SIZE, SIZE)
    features = extractor.forward({"rgb": clips})
    assert features["rgb"].shape == (2, 24)
    logits = extractor.classify(features)
    assert logits is not None
    with torch.inference_mode():
        torch.testing.assert_close(logits, network(clips).logits, rtol=1e-5, atol=1e-5)
    assert extractor.class_names == tuple(NAMES.values())


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_checkpoint_without_classifier(kind: str, tmp_path: Path) -> None:
    network = save(tmp_path, kind, BACKBONES[kind])
    extractor = opened(tmp_path)
    clips = windows(extractor)
    features = extractor.forward({"rgb": clips})
    with torch.inference_mode():
        if kind == "xclip":
            expected = network.get_video_features(clips).pooler_output
        elif kind == "vjepa2":
            expected = network.get_vision_features(clips).mean(1)
        else:
            expected = network(clips).last_hidden_state.mean(1)
    torch.testing.assert_close(features["rgb"], expected, rtol=1e-5, atol=1e-5)
    assert extractor.classify(features) is None
    assert extractor.class_names == ()


@pytest.mark.parametrize(
    ("kind", "network_class", "tokens"),
    [
        ("videomae", "VideoMAEForVideoClassification", 8),
        ("vjepa2", "VJEPA2ForVideoClassification", 8),
        ("timesformer", "TimesformerForVideoClassification", 17),
        ("vivit", "VivitForVideoClassification", 9),
        ("xclip", "XCLIPModel", 20),
        ("vjepa2", "VJEPA2Model", 8),
    ],
)
def test_tokens(kind: str, network_class: str, tokens: int, tmp_path: Path) -> None:
    network = save(tmp_path, kind, network_class)
    extractor = opened(tmp_path, output="tokens")
    clips = windows(extractor)
    features = extractor.forward({"rgb": clips})
    assert features["rgb"].shape == (2, tokens, 24)
    assert extractor.classify(features) is None
    with torch.inference_mode():
        if kind == "xclip":
            each = network.vision_model(clips.flatten(0, 1)).last_hidden_state
            expected = each.reshape(2, tokens, 24)
        else:
            expected = network.base_model(clips).last_hidden_state
    torch.testing.assert_close(features["rgb"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BACKBONES)
def test_pixels_are_those_of_the_library_frame_by_frame(kind: str, tmp_path: Path) -> None:
    save(tmp_path, kind, BACKBONES[kind])
    extractor = opened(tmp_path)
    video = frames(5)
    pixels = extractor.preprocess(video)["rgb"]
    processor = transformers.AutoVideoProcessor.from_pretrained(tmp_path)
    (expected,) = processor(list(video), return_tensors="pt").values()
    assert torch.equal(pixels, expected[0])
    alone = torch.cat([extractor.preprocess(frame[None])["rgb"] for frame in video])
    assert torch.equal(alone, pixels)
    assert len(extractor.resized(video)) == 5
    shown = extractor.resized(video)[0]
    assert (shown.dtype, shown.shape) == (np.uint8, (SIZE + 4, 54, 3))
    offset = 1 if kind == "vivit" else 0
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    scaled = shown[2:-2, 11:-11].astype(float) / (127.5 if offset else 255) - offset
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), (scaled - mean) / std, atol=1e-5)


def test_the_windows_choose_the_frames_and_not_the_processor(tmp_path: Path) -> None:
    save(tmp_path, "vjepa2", BACKBONES["vjepa2"])
    path = tmp_path / "preprocessor_config.json"
    sampling = {"do_sample_frames": True, "num_frames": 2}
    path.write_text(json.dumps({**json.loads(path.read_text()), **sampling}))
    assert opened(tmp_path).preprocess(frames(5))["rgb"].shape == (5, 3, SIZE, SIZE)


def test_the_predictor_does_not_run(tmp_path: Path) -> None:
    save(tmp_path, "vjepa2", BACKBONES["vjepa2"])
    extractor = opened(tmp_path)
    predictor = extractor.networks["rgb"].get_submodule("predictor")
    predictor.register_forward_hook(lambda *_: pytest.fail("it takes time for nothing"))
    extractor.forward({"rgb": windows(extractor)})


@pytest.mark.parametrize("kind", BACKBONES)
def test_batches_do_not_matter(kind: str, tmp_path: Path) -> None:
    save(tmp_path, kind, BACKBONES[kind])
    extractor = opened(tmp_path)
    clips = windows(extractor, 3)
    together = extractor.forward({"rgb": clips})["rgb"]
    alone = torch.cat([extractor.forward({"rgb": clip[None]})["rgb"] for clip in clips])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
    assert torch.equal(extractor.forward({"rgb": clips})["rgb"], together)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "timesformer"])
def test_another_window_length(kind: str, tmp_path: Path) -> None:
    save(tmp_path, kind, CLASSIFIERS[kind])
    extractor = opened(tmp_path, stack_size=6)
    assert extractor.stack_size == 6
    assert extractor.forward({"rgb": windows(extractor)})["rgb"].shape == (2, 24)


@pytest.mark.parametrize(
    ("kind", "stack", "allowed"),
    [
        ("vivit", 6, "allows only 4"),
        ("xclip", 8, "allows only 4"),
        ("videomae", 5, "allows multiples of 2"),
        ("vjepa2", 3, "allows multiples of 2"),
    ],
)
def test_a_length_that_the_network_cannot_read(
    kind: str, stack: int, allowed: str, tmp_path: Path
) -> None:
    save(tmp_path, kind, BACKBONES[kind])
    with pytest.raises(ConfigError, match=f"stack_size is {stack}; .* {allowed}"):
        opened(tmp_path, stack_size=stack)


def test_a_pretraining_checkpoint_is_its_encoder(tmp_path: Path) -> None:
    network = save(tmp_path, "videomae", "VideoMAEForPreTraining")
    extractor = opened(tmp_path)
    clips = windows(extractor)
    with torch.inference_mode():
        expected = network.videomae(clips).last_hidden_state.mean(1)
    features = extractor.forward({"rgb": clips})["rgb"]
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_numbered_classes_have_no_names(tmp_path: Path) -> None:
    save(tmp_path, "videomae", CLASSIFIERS["videomae"], id2label=None, num_labels=3)
    extractor = opened(tmp_path)
    assert extractor.class_names == ()
    logits = extractor.classify(extractor.forward({"rgb": windows(extractor)}))
    assert logits is not None
    assert logits.shape == (2, 3)


def test_a_layer_is_tapped(tmp_path: Path) -> None:
    save(tmp_path, "timesformer", CLASSIFIERS["timesformer"])
    extractor = opened(tmp_path, layer="timesformer.layernorm", pool="none")
    features = extractor.outputs(extractor.forward({"rgb": windows(extractor)}))
    assert features["rgb"].shape == (2, 17, 24)


def test_missing_weights_are_listed(tmp_path: Path) -> None:
    save(tmp_path, "videomae", BACKBONES["videomae"])
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": [CLASSIFIERS["videomae"]]}))
    with pytest.raises(WeightsError, match=r"missing: classifier.bias, classifier.weight"):
        opened(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "vivit", CLASSIFIERS["vivit"])
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_frames": 8}))
    with pytest.raises(WeightsError, match=r"1 wrong shape: .*position_embeddings"):
        opened(tmp_path)


def test_a_repository_with_pickles_only_is_refused(tmp_path: Path) -> None:
    network = save(tmp_path, "videomae", BACKBONES["videomae"])
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"no \.safetensors file.*can run code"):
        opened(tmp_path)


def test_pickles_beside_other_safetensors_are_not_read(tmp_path: Path) -> None:
    network = save(tmp_path, "videomae", BACKBONES["videomae"])
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter.safetensors")
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded as a videomae"):
        opened(tmp_path)


def test_an_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    save(tmp_path, "videomae", BACKBONES["videomae"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match="'bert'; allowed: videomae, vjepa2, timesformer, vivit"):
        opened(tmp_path)


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    save(tmp_path, "videomae", BACKBONES["videomae"])
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        opened(tmp_path)


def test_code_in_a_repository_is_not_run(tmp_path: Path) -> None:
    save(tmp_path, "videomae", BACKBONES["videomae"])
    path, ran = tmp_path / "config.json", tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    code = {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **code}))
    opened(tmp_path)
    assert not ran.exists()


def test_output_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match="output is 'mean'; allowed: pooled, tokens"):
        create_extractor(model_entry("hf/some/repo"), settings={"output": "mean"})
