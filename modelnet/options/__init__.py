"""Every option of training, declared once.

The command line, the checks, what may be swept, what a resumed run may change and which runs have "the same options"
follow from the declaration. No torch, no click.
"""

from modelnet.options.declaration import Option, Scope
from modelnet.options.groups import AUGMENTATIONS
from modelnet.options.train import DEVICE, OPTIONS, TrainOptions

__all__ = ["AUGMENTATIONS", "DEVICE", "OPTIONS", "Option", "Scope", "TrainOptions"]
