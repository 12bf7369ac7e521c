"""Model sources: each file has the class of one prefix, such as ``timm`` for ``timm:resnet18``."""
