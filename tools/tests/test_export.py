"""Checkpoints of every layout: official networks saved as their training scripts save them, exported, and compared with
the official network (not with the exporter's own). Weights are random; needs PyTorch, torchvision and timm.
"""
import argparse
import contextlib
import io
import pathlib
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime

from .common import ROOT, program, skip

try:
    import timm
    import torch
    import torchvision
    from torch import nn
except ImportError as error:
    skip("torch", f"PyTorch, torchvision and timm are needed (make test-export): {error}")

from encoders import Refused, cards, checkpoint, export, vit
import export_encoder

FRAMES = ROOT / "data" / "objects" / "query"


def prefixed(prefix, network):
    return {prefix + key: value for key, value in network.state_dict().items()}


def resnet(seed=0, name="resnet18", head=None):
    """A torchvision ResNet with random weights, also those that start as constants, and `head` for its classifier."""
    torch.manual_seed(seed)
    network = torchvision.models.get_model(name, weights=None)
    for key, value in network.named_buffers():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    network.fc = head or nn.Identity()
    return network.eval()


def mlp(inputs):
    return nn.Sequential(nn.Linear(inputs, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32, bias=False))


def transformer(seed=0, **more):
    """timm's ViT, from which MoCo v3's and (with layer scale) DINO's are made, with random weights everywhere."""
    torch.manual_seed(seed)
    network = timm.models.VisionTransformer(num_classes=0, qkv_bias=True, **more)
    for value in network.parameters():
        if value.ndim == 1:
            nn.init.normal_(value, 1.0, 0.1)
    nn.init.normal_(network.cls_token, 0, 0.5)
    nn.init.normal_(network.pos_embed, 0, 0.5)
    return network.eval()


class ConvStem(nn.Module):
    """The convolutional stem of facebookresearch/moco-v3, vits.py."""

    def __init__(self, img_size=224, patch_size=16, in_chans=3, embed_dim=768, **_more):
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        stem, inputs, outputs = [], in_chans, embed_dim // 8
        for _ in range(4):
            stem += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs, outputs = outputs, outputs * 2
        self.proj = nn.Sequential(*stem, nn.Conv2d(inputs, embed_dim, 1))

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Exporting(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = pathlib.Path(place.name)

    def export(self, saved, *options):
        """Saves a checkpoint, exports it; the path of the ONNX file and what was said."""
        torch.save(saved, self.folder / "c.pt")
        out = self.folder / "m.onnx"
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            export_encoder.main(
                [str(self.folder / "c.pt"), "--out", str(out), "--licence", "none", "--count", "2", *options]
            )
        return out, said.getvalue()

    def agrees(self, model, official, atol=2e-4):
        """The exported file gives what `official` gives for a frame, to `atol` of the largest value."""
        card = cards.read(model)
        image = cards.prepared(cards.images(FRAMES, 1)[0], card)
        with torch.no_grad():
            wanted = official(torch.from_numpy(image)).numpy()
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        found = session.run([card["output"]], {card["input"]: image})[0]
        self.assertEqual(found.shape, wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol * float(np.abs(wanted).max()))
        return card

    def refused(self, pattern, saved, *options):
        for path in (self.folder / "m.onnx", self.folder / "m.toml"):
            path.unlink(missing_ok=True)
        with self.assertRaisesRegex(Refused, pattern):
            self.export(saved, *options)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["c.pt"], "nothing is written")

    # facebookresearch/moco

    def moco(self, head, name="resnet18"):
        query, key = resnet(1, name, head), resnet(2, name, head)
        tensors = {**prefixed("module.encoder_q.", query), **prefixed("module.encoder_k.", key)}
        tensors |= {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
        query.fc = key.fc = nn.Identity()
        return {"epoch": 200, "arch": name, "state_dict": tensors, "optimizer": {"state": {}}}, query, key

    def test_moco_v1(self):
        saved, query, _ = self.moco(nn.Linear(512, 128))
        model, said = self.export(saved)
        card = self.agrees(model, query)
        self.assertIn("layout moco, module.encoder_q.*; 120 tensors taken, 2 of heads left out, 124 of other networks", said)
        self.assertEqual((card["kind"], card["size"], card["multiple_of"]), ("vector", 224, 32))

    def test_moco_v2_of_a_resnet_50(self):
        saved, query, _ = self.moco(nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128)), "resnet50")
        model, said = self.export(saved, "--size", "96")
        self.agrees(model, query)
        self.assertIn("4 of heads left out", said)

    def test_the_momentum_network_is_taken_on_demand(self):
        saved, _, key = self.moco(nn.Linear(512, 128))
        self.agrees(self.export(saved, "--momentum", "--size", "64")[0], key)

    # facebookresearch/moco-v3

    def test_moco_v3_resnet(self):
        base, momentum = resnet(1, head=mlp(512)), resnet(2, head=mlp(512))
        tensors = {**prefixed("module.base_encoder.", base), **prefixed("module.momentum_encoder.", momentum)}
        tensors |= prefixed("module.predictor.", mlp(32))
        base.fc = momentum.fc = nn.Identity()
        saved = {"epoch": 1, "arch": "resnet18", "state_dict": tensors}
        self.agrees(self.export(saved, "--size", "64")[0], base)
        self.agrees(self.export(saved, "--size", "64", "--momentum")[0], momentum)

    def test_moco_v3_vit(self):
        base = transformer(embed_dim=384, depth=12, num_heads=12)
        tensors = prefixed("module.base_encoder.", base) | prefixed("module.base_encoder.head.", mlp(384))
        model, _ = self.export({"arch": "vit_small", "state_dict": tensors})
        card = self.agrees(model, base)
        self.assertEqual((card["size"], card["multiple_of"]), (224, 224))

    def test_moco_v3_vit_with_a_convolutional_stem(self):
        base = transformer(embed_dim=384, depth=11, num_heads=12, embed_layer=ConvStem)
        self.agrees(self.export({"arch": "vit_conv_small", "state_dict": prefixed("module.base_encoder.", base)})[0], base)

    # SimCLR and others

    def test_simclr_of_lightly(self):
        network = resnet()
        backbone = nn.Sequential(*list(network.children())[:-1])
        tensors = prefixed("backbone.", backbone) | prefixed("projection_head.layers.", mlp(512))
        saved = {"epoch": 1, "pytorch-lightning_version": "2.5", "state_dict": tensors}
        self.agrees(self.export(saved, "--arch", "resnet18", "--size", "64")[0], network)

    def test_simclr_of_solo_learn(self):
        network, momentum = resnet(1), resnet(2)
        tensors = prefixed("backbone.", network) | prefixed("momentum_backbone.", momentum)
        tensors |= prefixed("projector.", mlp(512)) | prefixed("classifier.", nn.Linear(512, 10))
        saved = {"state_dict": tensors}
        options = ("--arch", "torchvision:resnet18", "--size", "64")
        self.agrees(self.export(saved, *options)[0], network)
        self.agrees(self.export(saved, *options, "--momentum")[0], momentum)

    def test_lightning_with_the_network_under_model(self):
        network = resnet(head=nn.Linear(512, 10))
        tensors = prefixed("model.", network)
        network.fc = nn.Identity()
        self.agrees(self.export({"state_dict": tensors}, "--arch", "resnet18", "--size", "64")[0], network)

    def test_names_of_ones_own_are_mapped(self):
        network = resnet()
        tensors = {"learner.online.net." + k.replace("layer", "stage"): v for k, v in network.state_dict().items()}
        options = ("--arch", "resnet18", "--size", "64")
        mapped = (r"--map", r"^learner\.online\.net\.=backbone.", "--map", r"stage(\d)=layer\1")
        self.agrees(self.export({"state_dict": tensors}, *options, *mapped)[0], network)
        self.refused("not in the file: layer1.0.conv1.weight", {"state_dict": tensors}, *options, "--map", "^learner.online.net.=")

    # facebookresearch/dino, dinov2

    def test_dino(self):
        teacher = transformer(1, embed_dim=192, depth=12, num_heads=3)
        student = transformer(2, embed_dim=192, depth=12, num_heads=3)
        saved = {
            "student": prefixed("module.backbone.", student) | prefixed("module.head.", mlp(192)),
            "teacher": prefixed("backbone.", teacher) | prefixed("head.", mlp(192)),
            "args": argparse.Namespace(arch="vit_tiny", patch_size=16),
        }
        options = ("--arch", "dino_vit_tiny_p16")
        self.agrees(self.export(saved, *options, "--layout", "dino")[0], teacher)
        self.agrees(self.export(saved, *options, "--layout", "dino-student")[0], student)
        self.agrees(self.export(teacher.state_dict(), *options)[0], teacher)

    def test_the_teacher_of_dino_is_what_is_found_by_itself(self):
        teacher, student = (transformer(s, embed_dim=192, depth=12, num_heads=3) for s in (1, 2))
        saved = {"student": prefixed("module.backbone.", student), "teacher": prefixed("backbone.", teacher)}
        self.agrees(self.export(saved, "--arch", "dino_vit_tiny_p16")[0], teacher)

    def test_dinov2_and_the_grid_of_its_patches(self):
        more = {"patch_size": 14, "init_values": 1.0, "img_size": 224}
        network = transformer(embed_dim=384, depth=12, num_heads=6, **more)
        saved = {**network.state_dict(), "mask_token": torch.zeros(1, 384)}
        self.agrees(self.export(saved, "--arch", "dinov2_vit_small")[0], network)

        def patches(image):
            return network.forward_features(image)[:, 1:].reshape(-1, 16, 16, 384)

        card = self.agrees(self.export(saved, "--arch", "dinov2_vit_small", "--grid")[0], patches)
        self.assertEqual((card["kind"], card["layout"]), ("grid", "hwd"))

    def test_dinov2_with_registers(self):
        more = {"patch_size": 14, "init_values": 1.0, "img_size": 224, "reg_tokens": 4, "no_embed_class": False}
        network = transformer(embed_dim=384, depth=12, num_heads=6, **more)
        # timm adds positions before or after the registers are put in; here the registers get none, as in DINOv2.
        ours = vit.VisionTransformer(vit.SHAPES["dinov2_reg_vit_small"])
        names = {k.replace("reg_token", "register_tokens"): v for k, v in network.state_dict().items()}
        positions = torch.cat([names["pos_embed"][:, :1], names["pos_embed"][:, 5:]], 1)
        names |= {"pos_embed": positions, "mask_token": torch.zeros(1, 384)}
        ours.load_state_dict(names)
        with torch.no_grad():
            network.pos_embed[:, 1:5] = 0
        self.agrees(self.export(names, "--arch", "dinov2_reg_vit_small")[0], network)

    def test_another_size_interpolates_the_positions(self):
        network = transformer(embed_dim=192, depth=12, num_heads=3)
        model, _ = self.export(network.state_dict(), "--arch", "dino_vit_tiny_p16", "--size", "160")
        resized = transformer(embed_dim=192, depth=12, num_heads=3, img_size=160)
        grid = network.pos_embed[:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(10, 10), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 100, 192)
        positions = torch.cat([network.pos_embed[:, :1], grid], 1)
        resized.load_state_dict({**network.state_dict(), "pos_embed": positions})
        self.agrees(model, resized)

    # torchvision, timm, grids, CPC

    def test_networks_of_torchvision_and_timm(self):
        for name in ("mobilenet_v3_small", "shufflenet_v2_x0_5"):
            torch.manual_seed(3)
            network = torchvision.models.get_model(name, weights=None).eval()
            tensors = network.state_dict()
            setattr(network, "fc" if hasattr(network, "fc") else "classifier", nn.Identity())
            self.agrees(self.export(tensors, "--arch", name, "--size", "64")[0], network)
        for name in ("resnet18", "vit_tiny_patch16_224"):
            torch.manual_seed(3)
            network = timm.create_model(name, num_classes=10).eval()
            tensors = network.state_dict()
            network.reset_classifier(0)
            self.agrees(self.export({"state_dict": tensors}, "--arch", f"timm:{name}")[0], network)

    def test_grids_of_convolutional_networks(self):
        network = resnet()
        maps = nn.Sequential(*list(network.children())[:-2])
        model, _ = self.export(network.state_dict(), "--arch", "resnet18", "--grid", "--size", "96")
        card = self.agrees(model, maps)
        self.assertEqual((card["kind"], card["layout"], card["multiple_of"]), ("grid", "dhw", 32))
        torch.manual_seed(3)
        other = timm.create_model("resnet18", num_classes=0).eval()
        model, _ = self.export(other.state_dict(), "--arch", "timm:resnet18", "--grid", "--size", "96")
        self.agrees(model, other.forward_features)

    def test_grids_of_transformers(self):
        torch.manual_seed(3)
        network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
        model, _ = self.export(network.state_dict(), "--arch", "timm:vit_tiny_patch16_224", "--grid")
        self.agrees(model, lambda image: network.forward_features(image)[:, 1:].reshape(-1, 14, 14, 192))

    def test_cpc(self):
        network = resnet()

        def cells(image):
            rows = []
            for y in range(0, 224, 32):
                for x in range(0, 224, 32):
                    rows.append(network(image[:, :, y : y + 64, x : x + 64]))
            return torch.stack(rows, 1).reshape(-1, 7, 7, 512)

        saved = {"state_dict": prefixed("encoder.", network)}
        model, _ = self.export(saved, "--arch", "resnet18", "--cpc")
        card = self.agrees(model, cells)
        self.assertEqual((card["kind"], card["layout"], card["size"], card["multiple_of"]), ("grid", "hwd", 256, 256))
        operators = [node.op_type for node in onnx.load(model).graph.node]
        self.assertEqual(operators.count("Slice"), 4)
        self.refused("do not fill an image", saved, "--arch", "resnet18", "--cpc", "--cell", "50")

    # What is refused

    def test_a_checkpoint_of_another_network_is_refused_with_names(self):
        saved, _, _ = self.moco(nn.Linear(512, 128))
        self.refused("not in the file: layer1.0.conv3.weight, .* and .* more", saved, "--arch", "resnet50")
        tensors = saved["state_dict"]
        narrow = {**tensors, "module.encoder_q.conv1.weight": torch.zeros(64, 3, 3, 3)}
        self.refused(
            r"another shape: conv1.weight \[64, 3, 3, 3\] for \[64, 3, 7, 7\]", {**saved, "state_dict": narrow}
        )
        more = {**tensors, "module.encoder_q.layer5.weight": torch.zeros(1)}
        self.refused("not in the network: layer5.weight", {**saved, "state_dict": more})
        del tensors["module.encoder_q.bn1.running_mean"]
        self.refused("not in the file: bn1.running_mean", saved)

    def test_what_is_no_checkpoint_is_refused(self):
        self.refused("could run code", {"state_dict": {}, "model": resnet()}, "--arch", "resnet18")
        self.refused("holds a list", [torch.zeros(1)], "--arch", "resnet18")
        self.refused("does not say which network", {"state_dict": {"a": torch.zeros(1)}})
        self.refused("no tensors where layout moco has them", {"weights": 3}, "--arch", "resnet18", "--layout", "moco")
        self.refused("no such network", {"state_dict": {"a": torch.zeros(1)}}, "--arch", "resnet7")
        cut = self.folder / "cut.pt"
        torch.save({"a": torch.zeros(1000)}, cut)
        cut.write_bytes(cut.read_bytes()[:1000])
        with self.assertRaisesRegex(Refused, "not complete|no checkpoint"):
            checkpoint.load(cut)

    def test_a_file_that_disagrees_with_pytorch_is_removed(self):
        model, _ = self.export(resnet(1).state_dict(), "--arch", "resnet18", "--size", "64")
        card = cards.read(model)
        with self.assertRaisesRegex(Refused, "was removed"):
            export.agree(resnet(2), model, card, cards.images(FRAMES, 1))
        self.assertFalse(model.exists())

    # The program itself

    def test_the_program_learns_with_what_was_exported_and_merges_head_and_encoder(self):
        network = resnet()
        for options in ((), ("--grid",)):
            model, _ = self.export(network.state_dict(), "--arch", "resnet18", "--size", "64", *options)
            self.assertIn("ok    encoder", program("check", "--encoder", model, cwd=self.folder))
            run = self.folder / f"run{len(options)}"
            source = "pattern://7?frames=300&segments=30&width=64&height=48"
            program("learn", "--encoder", model, "--source", source, "--out", run, cwd=self.folder)
            said = program("export", "--run", run, "--onnx", self.folder / "merged.onnx", cwd=self.folder)
            # Nothing is learned from random weights that the judge would let through: this is the frozen head, number 0.
            self.assertIn("encoder and head 0 in one", said)


if __name__ == "__main__":
    unittest.main()
