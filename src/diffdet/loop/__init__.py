"""Epochs, phases, events, updates, schedules, history and checkpoints; knows nothing of muons."""

from diffdet.loop.callbacks import Callback as Callback
from diffdet.loop.callbacks import ClipUpdate as ClipUpdate
from diffdet.loop.callbacks import Every as Every
from diffdet.loop.callbacks import StopOnNonFinite as StopOnNonFinite
from diffdet.loop.callbacks import StopOnPlateau as StopOnPlateau
from diffdet.loop.checkpoint import Checkpoints as Checkpoints
from diffdet.loop.engine import Loop as Loop
from diffdet.loop.engine import Step as Step
from diffdet.loop.events import LOOP_EVENTS as LOOP_EVENTS
from diffdet.loop.history import History as History
from diffdet.loop.history import ProgressLine as ProgressLine
from diffdet.loop.interrupts import Interruptible as Interruptible
from diffdet.loop.schedules import ScheduleRate as ScheduleRate
from diffdet.loop.state import LoopState as LoopState
from diffdet.loop.update import Update as Update
