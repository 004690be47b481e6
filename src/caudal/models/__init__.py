"""Networks: pure torch modules, and the folder that a trained one is kept in. No file is read but weights."""

from __future__ import annotations

from caudal.core.registry import Registry

MODELS = Registry(
    "model",
    "caudal.models",
    {
        "unet": "caudal.models.unet:UNet",
        "autoencoder": "caudal.models.autoencoder:Autoencoder",
        "patch_memory": "caudal.models.patch_memory:PatchMemory",
        "rx": "caudal.models.rx:Rx",
        "backbone": "caudal.models.backbone:Backbone",
        "residual": "caudal.models.residual:ResidualNet",
        "recurrent": "caudal.models.recurrent:Recurrent",
        "temporal": "caudal.models.temporal:Temporal",
        "encoder": "caudal.models.encoder:Encoder",
        "graph_conv": "caudal.models.graph_conv:GraphConv",
    },
)
