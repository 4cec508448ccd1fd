"""A Pyro program traced once into a flat graph of torch operations, and run at the speed of those."""

from pyro_vae.compiled.capture import capture, make_capturable
from pyro_vae.compiled.elbo import CompiledELBO
from pyro_vae.compiled.functions import FlatFunction
from pyro_vae.compiled.graph import FlatGraph, NotCompiled
from pyro_vae.compiled.kept import Kept
from pyro_vae.compiled.many import Apart, FlatStepsOfMany, Member, Regroup, Run
from pyro_vae.compiled.policy import Compile, agree
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.record import State
from pyro_vae.compiled.stacks import Stacks
from pyro_vae.compiled.steps import Backend, FlatSteps
from pyro_vae.compiled.whole_step import NotExpressible, WholeStep

__all__ = [
    "Apart",
    "Backend",
    "Compile",
    "CompiledELBO",
    "FlatFunction",
    "FlatGraph",
    "FlatSteps",
    "FlatStepsOfMany",
    "Kept",
    "Member",
    "NotCompiled",
    "NotExpressible",
    "Regroup",
    "Run",
    "Stacks",
    "State",
    "Untraceable",
    "WholeStep",
    "agree",
    "capture",
    "make_capturable",
]
