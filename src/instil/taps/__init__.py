"""Net, and access to parts of a model by module path: read, replace or freeze them."""

from instil.taps.dry_run import side_effect_free
from instil.taps.freezing import parts_to_freeze
from instil.taps.net import Call, Net, as_net, plain_call
from instil.taps.path import Taps, describe_modules
from instil.taps.recorder import Recorder, StopForward
from instil.taps.replacement import replaced_outputs

__all__ = [
    "Call",
    "Net",
    "Recorder",
    "StopForward",
    "Taps",
    "as_net",
    "describe_modules",
    "parts_to_freeze",
    "plain_call",
    "replaced_outputs",
    "side_effect_free",
]
