"""Access to parts of a model by module path: read, replace or freeze them."""

from instil.taps.freezing import parts_to_freeze
from instil.taps.path import Taps
from instil.taps.recorder import Recorder, StopForward
from instil.taps.replacement import replaced_outputs

__all__ = ["Recorder", "StopForward", "Taps", "parts_to_freeze", "replaced_outputs"]
