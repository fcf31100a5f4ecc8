"""CLIP: the features of open_clip's own model and transform, and zero-shot predictions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

open_clip = pytest.importorskip("open_clip")

from open_clip.model import CLIP, build_model_from_openai_state_dict  # noqa: E402
from reelstack.errors import ConfigError, WeightsError  # noqa: E402
from reelstack.models.base import Extractor  # noqa: E402
from reelstack.models.registry import MODELS, create_extractor, model_entry  # noqa: E402
from reelstack.models.weights import catalogue  # noqa: E402
from torchvision import transforms  # noqa: E402

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
TINY: dict[str, dict[str, Any]] = {
    "ViT-B-32": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": TEXT,
    },
    "RN50": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
}
SCALARS = {"input_resolution": 48, "context_length": 77, "vocab_size": 49408}
NAMES = ["diving", "playing the violin"]
KINDS = pytest.mark.parametrize("name", TINY)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    published = open_clip.get_model_config
    monkeypatch.setattr(
        open_clip, "get_model_config", lambda name: TINY.get(name) or published(name)
    )


def state_of(name: str) -> dict[str, Tensor]:
    """Random weights in the published form: half precision where OpenAI's files have it."""
    torch.manual_seed(5)
    network = CLIP(**TINY[name], quick_gelu=True, cast_dtype=torch.float32)
    with torch.no_grad():  # what starts as zeros or ones would hide mistakes
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    open_clip.model.convert_weights_to_lp(network, torch.float16)
    scalars = {key: torch.tensor(value) for key, value in SCALARS.items()}
    return {**network.state_dict(), **scalars}


def reference(name: str) -> Any:
    return build_model_from_openai_state_dict(state_of(name)).float().eval()


def opened(name: str, path: Path, **settings: Any) -> Extractor:
    torch.save(state_of(name), path / "clip.pt")
    extractor = create_extractor(model_entry(f"clip/{name}"), settings=settings)
    extractor.load({"rgb": path / "clip.pt"}, device="cpu", precision="fp32")
    return extractor


def frames(count: int = 3, height: int = 90, width: int = 131) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@KINDS
@pytest.mark.parametrize("size", [(90, 131), (131, 90), (30, 40)])
def test_pixels_are_those_of_the_published_transform(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    side = TINY[name]["vision_cfg"]["image_size"]
    transform = transforms.Compose(
        [
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(
                (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            ),
        ]
    )
    video = frames(2, *size)
    extractor = opened(name, tmp_path)
    pixels = extractor.preprocess(video)["rgb"]
    expected = torch.stack([transform(Image.fromarray(frame)) for frame in video])
    torch.testing.assert_close(pixels, expected, rtol=1e-6, atol=1e-6)
    shown = extractor.resized(video)[0]
    assert min(shown.shape[:2]) == side
    assert shown.dtype == np.uint8


@KINDS
def test_features_are_those_of_encode_image(name: str, tmp_path: Path) -> None:
    extractor = opened(name, tmp_path)
    pixels = extractor.preprocess(frames())["rgb"]
    features = extractor.forward({"rgb": pixels[:, None]})
    with torch.inference_mode():
        expected = reference(name).encode_image(pixels)
    assert features["rgb"].shape == (3, TINY[name]["embed_dim"])
    torch.testing.assert_close(features["rgb"], expected, rtol=1e-4, atol=1e-5)
    alone = torch.cat([extractor.forward({"rgb": p[None, None]})["rgb"] for p in pixels])
    torch.testing.assert_close(alone, features["rgb"], rtol=1e-4, atol=1e-5)
    stack = extractor.forward({"rgb": pixels[None]})["rgb"]
    torch.testing.assert_close(stack[0], features["rgb"].mean(0), rtol=1e-4, atol=1e-5)
    assert extractor.classify(features) is None


@KINDS
@pytest.mark.parametrize("prompt", ["a photo of {}", "{}, seen on {}"])
def test_zero_shot_logits(name: str, prompt: str, tmp_path: Path) -> None:
    extractor = opened(name, tmp_path, labels=NAMES, prompt=prompt)
    assert extractor.class_names == tuple(NAMES)
    pixels = extractor.preprocess(frames())["rgb"]
    logits = extractor.classify(extractor.forward({"rgb": pixels[:, None]}))
    texts = open_clip.tokenize([prompt.replace("{}", label) for label in NAMES])
    with torch.inference_mode():
        images, words, scale = reference(name)(pixels, texts)
    assert logits is not None
    torch.testing.assert_close(logits, scale * images @ words.T, rtol=1e-4, atol=1e-4)


def test_many_classes(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(70)]
    extractor = opened("ViT-B-32", tmp_path, labels=names)
    logits = extractor.classify({"rgb": torch.rand(2, 16)})
    assert logits is not None
    assert logits.shape == (2, 70)


def test_weights_in_float32_are_rounded_as_published(tmp_path: Path) -> None:
    state = state_of("ViT-B-32")
    nudged = {key: value.float() * (1 + 1e-5) for key, value in state.items()}
    half = {key for key, value in state.items() if value.dtype == torch.float16}
    same = {key: nudged[key] if key in half else value for key, value in state.items()}
    torch.save(same, tmp_path / "single.pt")
    extractor = create_extractor(model_entry("clip/ViT-B-32"))
    extractor.load({"rgb": tmp_path / "single.pt"}, device="cpu", precision="fp32")
    pixels = {"rgb": torch.rand(2, 1, 3, 48, 48)}
    expected = opened("ViT-B-32", tmp_path).forward(pixels)["rgb"]
    assert torch.equal(extractor.forward(pixels)["rgb"], expected)


class Holder(nn.Module):
    """A module tree with the keys of a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for head in dict.fromkeys(key.partition(".")[0] for key in state):
            inner = {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{head}.")}
            if inner:
                self.add_module(head, Holder(inner))
            else:
                self.register_buffer(head, state[head])


def test_the_published_container(tmp_path: Path) -> None:
    """OpenAI's files are TorchScript archives."""
    with warnings.catch_warnings():  # torch.jit is deprecated
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Holder(state_of("ViT-B-32")))
        torch.jit.save(scripted, str(tmp_path / "archive.pt"))
    extractor = create_extractor(model_entry("clip/ViT-B-32"))
    extractor.load({"rgb": tmp_path / "archive.pt"}, device="cpu", precision="fp32")
    pixels = {"rgb": torch.rand(2, 1, 3, 48, 48)}
    expected = opened("ViT-B-32", tmp_path).forward(pixels)["rgb"]
    assert torch.equal(extractor.forward(pixels)["rgb"], expected)


def test_a_layer_is_tapped(tmp_path: Path) -> None:
    extractor = opened("ViT-B-32", tmp_path, layer="transformer.resblocks.1", pool="none")
    pixels = extractor.preprocess(frames())["rgb"]
    features = extractor.outputs(extractor.forward({"rgb": pixels[:, None]}))
    assert features["rgb"].shape == (3, 10, 64)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(state_of("RN50"), tmp_path / "clip.pt")
    extractor = create_extractor(model_entry("clip/ViT-B-32"))
    with pytest.raises(WeightsError, match=r"missing: .*\n.*unexpected: visual"):
        extractor.load({"rgb": tmp_path / "clip.pt"}, device="cpu", precision="fp32")


def test_a_prompt_needs_a_place_for_the_name() -> None:
    with pytest.raises(ConfigError, match="prompt is 'a photo'; allowed: a text with"):
        create_extractor(model_entry("clip/ViT-B-32"), settings={"prompt": "a photo"})


@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("clip/")])
def test_the_registry_has_the_facts_of_open_clip(model: str) -> None:
    name = model.removeprefix("clip/").replace("@336px", "-336")
    if name not in TINY:
        assert model_entry(model).feature_dim == open_clip.get_model_config(name)["embed_dim"]
    (published,) = catalogue()[model].values()
    assert published.url == open_clip.get_pretrained_url(name, "openai")
    assert published.sha256 == str(published.url).split("/")[-2]
