"""Classification of recordings: keywords, languages, speakers."""

from __future__ import annotations

from typing import ClassVar

from instil.core import Card
from instil.tasks.bases.audio_call import call_recordings
from instil.tasks.bases.audio_task import AudioTask
from instil.tasks.bases.classes import ClassTask


class AudioClassification(AudioTask, ClassTask):
    """Classification of recordings, such as keywords, languages and speakers.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Audio classification", tasks=("audio_classification",))
    title = "audio classification"
    baselines: ClassVar = ClassTask.baselines
    call = staticmethod(call_recordings)
