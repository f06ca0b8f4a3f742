"""Steering: fit a change of a language model's activations on contrasting prompts, apply it at any strength.

steering = ActivationAddition.fit(model, tokenizer, positive, negative)
with steering.applied(model, strength=1.5):
    model.generate(**batch)
"""

from interplay.steering.activation_addition import ActivationAddition
from interplay.steering.collection import collect_activations
from interplay.steering.interface import METHODS, Applied, Steering, SteeringSequence, find_method, load_steering

__all__ = [
    "METHODS",
    "ActivationAddition",
    "Applied",
    "Steering",
    "SteeringSequence",
    "collect_activations",
    "find_method",
    "load_steering",
]
