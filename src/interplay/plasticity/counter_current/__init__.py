from interplay.plasticity.counter_current.losses import CounterCurrentObjective, LocalLosses, counter_current_loss
from interplay.plasticity.counter_current.network import (
    CCConv2d,
    CCFlatten,
    CCLinear,
    CounterCurrentNet,
    CounterCurrentPair,
)
from interplay.plasticity.counter_current.training import (
    CounterCurrentTrainer,
    alignment,
    centralize_gradients,
    update_cosine_to_backpropagation,
)
